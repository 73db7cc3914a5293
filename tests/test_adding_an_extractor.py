"""The how-to's example is real: as written there it is a stage, it computes what it says, and mistakes in it are named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import Kind, Runtime
from extractors.registry import load as load_extractor
from pipeline import config, keys
from pipeline.errors import RequestError

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "adding-an-extractor.md"
USE = "my_package.brightness:Brightness"


def block(language: str) -> str:
    """The document's only block of that language."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's module, importable as the document says."""
    module = tmp_path / "my_package" / "brightness.py"
    module.parent.mkdir()
    module.with_name("__init__.py").touch()
    module.write_text(block("python"), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_package", "my_package.brightness"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return module


def stages_file(folder: Path, text: str) -> Path:
    path = folder / "stages.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def make(**params: Any) -> Any:
    extractor = load_extractor(USE)
    return extractor(extractor.Params(**params), Runtime())


@pytest.mark.usefixtures("package")
def test_the_stages_file_of_the_document_uses_it(tmp_path: Path) -> None:
    stage = config.load(stages_file(tmp_path, block("yaml"))).stage("brightness")
    assert stage.extractor is load_extractor(USE)
    assert (stage.yields, stage.inputs) == (Kind.FEATURE, ("faces",))
    assert stage.params == load_extractor(USE).Params(part="upper", gamma=0.5)
    assert keys.canonical(keys.params_part(stage.params)) == '{"gamma":0.5,"part":"upper"}'


@pytest.mark.usefixtures("package")
def test_it_computes_the_mean_luma_of_a_part() -> None:
    grey = np.full((112, 112, 3), 51, np.uint8)
    halves = np.zeros((112, 112, 3), np.uint8)
    halves[:56] = 255
    green = np.zeros((112, 112, 3), np.uint8)
    green[..., 1] = 255
    crops = np.stack([grey, halves, green])
    for params, expected in (
        ({}, [0.2, 0.5, 0.587]),
        ({"part": "upper"}, [0.2, 1, 0.587]),
        ({"part": "lower"}, [0.2, 0, 0.587]),
        ({"gamma": 2.0}, [0.04, 0.25, 0.587**2]),
    ):
        values = make(**params).embed(crops)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, np.array(expected)[:, None], atol=1e-6)
    assert make().embed(crops[:0]).shape == (0, 1)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("gama: 0.5", r"stages\.yaml:5: stages\.brightness\.gama: unknown key; did you mean 'gamma'"),
        ("gamma: -1", r"stages\.yaml:5: stages\.brightness\.gamma: expected a number above 0, got -1"),
        ("part: left", r"stages\.yaml:5: stages\.brightness\.part: .*give whole \| upper \| lower"),
        ("weights: face.pt", r"stages\.yaml:5: stages\.brightness\.weights: brightness takes no weight file"),
    ],
)
def test_mistakes_in_its_stage_are_named(wrong: str, said: str, tmp_path: Path) -> None:
    text = block("yaml").replace("part: upper, gamma: 0.5", wrong)
    with pytest.raises(RequestError, match=said):
        config.load(stages_file(tmp_path, text))


@pytest.mark.parametrize(
    ("line", "changed", "why"),
    [
        ('    licence = "MIT"\n', "", "it lacks licence"),
        ("    Params = BrightnessParams\n", "    Params = dict\n", "its Params is not a dataclass"),
        ("    version = 1 ", '    version = "1" ', "its version is '1', not a whole number"),
        ("    yields = Kind.FEATURE\n", '    yields = "brightness"\n', "it yields 'brightness', not one of timeline, faces"),
    ],
)
def test_a_class_that_is_no_extractor_is_told_why(line: str, changed: str, why: str, package: Path, tmp_path: Path) -> None:
    code = package.read_text(encoding="utf-8")
    assert line in code
    package.write_text(code.replace(line, changed), encoding="utf-8")
    with pytest.raises(RequestError, match=rf"stages\.yaml:5: .*{USE} is not an extractor: {why}.*adding-an-extractor\.md"):
        config.load(stages_file(tmp_path, block("yaml")))


def test_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    text = block("yaml").replace("my_package", "no_such_package")
    with pytest.raises(RequestError, match=r"stages\.yaml:5: .*no_such_package.*cannot be imported.*install the package"):
        config.load(stages_file(tmp_path, text))


def test_the_example_is_written_as_this_repository_is(package: Path) -> None:
    """A reader will copy it."""
    root = DOCUMENT.parents[1]
    ruff = [sys.executable, "-m", "ruff", "check", "--config", str(root / "pyproject.toml"), str(package)]
    layout = [sys.executable, "-m", "ruff", "format", "--check", "--config", str(root / "pyproject.toml"), str(package)]
    for command in (ruff, layout):
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
