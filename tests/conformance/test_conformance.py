"""What every extractor of the registry says of itself, checked alike for all of them. A new extractor is one row in conftest.py."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from extractors.contract import PRECISIONS, Kind
from extractors.protocols import Extractor
from extractors.registry import EXTRACTORS, load
from pipeline import config, keys

ROOT = Path(__file__).resolve().parents[2]
Rows = dict[str, Any]  # name -> a row of conftest.py


def test_every_extractor_of_the_registry_has_its_row(rows: Rows) -> None:
    assert rows.keys() == EXTRACTORS.keys()


def test_importing_extractors_is_cheap() -> None:
    """Planning imports every extractor for its parameters and version, and must not wait for torch."""
    modules = [entry.target.partition(":")[0] for entry in EXTRACTORS.values()]
    heavy = ["torch", "torchvision", "cv2", "opensmile", "skimage", "facenet_pytorch", "torchvggish", "pandas"]
    code = f"import {', '.join(modules)}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_says_what_the_contract_asks(name: str, rows: Rows) -> None:
    extractor, row = load(name), rows[name]
    assert [attribute for attribute in [*Extractor.__annotations__, "reads"] if not hasattr(extractor, attribute)] == []
    assert extractor.name == name
    assert type(extractor.version) is int
    assert extractor.version >= 1
    assert extractor.yields is row.yields
    assert extractor.decoder in (None, "pyav", "ffmpeg", "openface")
    assert (extractor.decoder is not None) == (row.offers in ("rows", "condition", "follow", "read_table")), (
        "a decoder for those that see the source"
    )
    assert set(extractor.precisions) <= set(PRECISIONS)
    assert extractor.precisions[0] == "float32", "the default must be possible"
    assert type(extractor.needs_weights) is bool
    assert extractor.origin or not extractor.needs_weights, "a missing weight file must be told with its origin"
    assert extractor.licence
    assert extractor.__doc__
    assert callable(getattr(extractor, row.offers))
    assert row.offers != "clips" or callable(extractor.embed_clips)
    assert extractor.reads(extractor.Params()) == row.reads
    assert set(extractor.reads(extractor.Params(**row.params))) <= {*row.reads, Kind.TIMELINE}
    assert hasattr(extractor, "root_holds") == (row.offers in ("read", "read_table"))


def is_plain(hint: Any) -> bool:
    """bool, int, float, str, None, Literal, and unions and tuples of them."""
    if typing.get_origin(hint) is Literal or hint in (bool, int, float, str, type(None), Ellipsis):
        return True
    return typing.get_origin(hint) in (tuple, typing.Union, types.UnionType) and all(map(is_plain, typing.get_args(hint)))


def test_parameters_are_frozen_plain_and_survive_json(name: str, rows: Rows) -> None:
    Params, other = load(name).Params, rows[name].params
    fields = dataclasses.fields(Params)
    assert Params.__dataclass_params__.frozen
    assert all(one.kw_only and one.default is not dataclasses.MISSING for one in fields)
    assert all(is_plain(hint) for hint in typing.get_type_hints(Params).values())
    assert other.keys() == {one.name for one in fields}, "give every parameter another value in conftest.py"
    assert all(getattr(Params(), key) != value for key, value in other.items())
    for params in (Params(), Params(**other)):
        text = keys.canonical(keys.params_part(params))
        assert Params(**json.loads(text)) == params
        assert hash(Params(**json.loads(text))) == hash(params)
        for one in fields:
            with pytest.raises(dataclasses.FrozenInstanceError, match=f"cannot assign to field '{one.name}'"):
                setattr(params, one.name, None)
    assert keys.canonical(keys.params_part(Params())) != keys.canonical(keys.params_part(Params(**other))) or not other


def test_a_stages_file_can_use_it(name: str, rows: Rows, tmp_path: Path) -> None:
    row = rows[name]
    faces, audio = {"use": "mtcnn"}, {"use": "waveform", "rate_hz": row.rate_hz}
    stages: dict[str, dict[str, Any]] = {"timeline": {"use": "timeline"}, "faces": faces, "audio": audio}
    stage = {Kind.TIMELINE: "timeline", Kind.FACES: "faces", Kind.WAVEFORM: "audio", Kind.FEATURE: "feature"}[row.yields]
    reserved = {"weights": "stand_in.pt"} if load(name).needs_weights else {"root": "crops"} if row.offers == "read" else {}
    stages[stage] = {"use": name, **row.params, **reserved}
    (tmp_path / "stages.yaml").write_text(yaml.safe_dump({"version": 1, "stages": stages}))
    read = config.load(tmp_path / "stages.yaml").stage(stage)
    assert read.params == load(name).Params(**row.params)
    assert read.yields is row.yields
    assert len(read.inputs) == len(load(name).reads(read.params))


def test_the_documentation_lists_it_with_its_defaults(name: str) -> None:
    sections = (ROOT / "docs" / "extractors.md").read_text().split("\n## ")
    section = next((text for text in sections if text.startswith(f"{name}\n")), "")
    assert section, f"docs/extractors.md has no section {name!r}"
    assert load(name).licence in section
    assert load(name).origin in section
    for one in dataclasses.fields(load(name).Params):
        default = keys.canonical(one.default).strip('"')
        assert f"`{one.name}: {default}`" in section


@pytest.mark.parametrize(
    ("use", "package"),
    [("efficientnet_b0", "timm"), ("dino_vit", "timm"), ("wav2vec2", "transformers"), ("compare_lld", "opensmile")],
)
def test_an_extra_that_is_not_installed_is_named(use: str, package: str) -> None:
    """In a process of its own, where the package cannot be found."""
    code = f"""
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *given: None if name == {package!r} else found(name, *given)
from extractors.registry import load
load({use!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (
        f"extractor {use!r} cannot be imported: No module named {package!r}; pip install 'affectpipe[{EXTRACTORS[use].extra}]'"
        in done.stderr
    )
