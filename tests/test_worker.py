"""The worker by itself: which devices it takes, what it says of a damaged input, and what counts as its extractor's code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from extractors.contract import Kind
from extractors.registry import EXTRACTORS
from pipeline.code_digest import code_digest
from pipeline.errors import RequestError
from pipeline.fates import Fate
from pipeline.stages import Item
from pipeline.threads import usable_cores
from pipeline.worker import Job, Worker, check_device

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch sees two GPUs."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "", "cpu ", "cuda:1 ", "cuda:\u0661"])
def test_a_word_that_is_no_device(device: str) -> None:
    with pytest.raises(RequestError, match=r"^--device: cannot compute on '.*': unknown device; known: cpu, auto, cuda, cuda:N$"):
        check_device(device)


@pytest.mark.usefixtures("gpus")
def test_a_gpu_that_there_is_not() -> None:
    for device in ("cpu", "auto", "cuda", "cuda:0", "cuda:1"):
        check_device(device)
    with pytest.raises(RequestError, match="cannot compute on 'cuda:2': torch sees 2 GPUs, numbered from 0; give --device auto"):
        check_device("cuda:2")


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="cannot compute on 'cuda': torch sees no GPU on this machine"):
        check_device("cuda")


def job(use: str, kind: Kind, given: Path) -> Job:
    """Of one trial, which reads the given artifact."""
    item = Item(key="k", trial="106", person="main", inputs=(given,), target=given.with_name("out.h5"))
    return Job(
        stage=use,
        use=use,
        params=_params(use),
        kind=kind,
        precision="float32",
        weights=None,
        root=None,
        source=Path("106.mp4"),
        source_state=None,
        items=(item,),
        identities={"k": {"stage": {"weights": None}}},
        device="cpu",
        reason="new",
        code=code_digest(use),
    )


def test_a_damaged_input_is_no_defect(tmp_path: Path) -> None:
    waveform = tmp_path / "waveform.h5"
    waveform.write_text("not HDF5")
    (outcome,) = Worker().run(job("logmel", Kind.FEATURE, waveform)).outcomes
    assert outcome.problem is not None
    assert (outcome.problem.what, outcome.fate) == ("an input artifact is damaged", Fate.PASSING)
    assert str(waveform) in outcome.problem.why
    assert outcome.problem.fix == "run `affectpipe verify`, then run again"


@pytest.mark.parametrize(("told", "threads"), [("3", 3), ("1", 1), (None, usable_cores())])
def test_an_extractor_is_told_how_many_threads_it_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, threads: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    worker = Worker()
    worker.run(job("mtcnn", Kind.FACES, tmp_path / "timeline.h5"))
    (extractor,) = worker.models.values()
    assert extractor.threads == threads


def _params(use: str) -> object:
    from extractors.registry import load

    return load(use).Params()


DIGESTS = "import sys, pipeline.code_digest as w; print(*map(w.code_digest, sys.argv[1:])); assert 'torch' not in sys.modules"


def _digests(root: Path) -> dict[str, str]:
    """In a copy of the code, by a process of its own."""
    words = [sys.executable, "-c", DIGESTS, *EXTRACTORS]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return dict(zip(EXTRACTORS, done.stdout.split(), strict=True))


@pytest.mark.parametrize(
    ("file", "edit", "changed"),
    [
        ("extractors/audio/mel.py", "# a comment\n\n\n", set()),
        ("extractors/contract.py", "ADDED = 1\n", set()),
        ("extractors/audio/logmel.py", "ADDED = 1\n", {"logmel"}),
        ("extractors/face/tracking.py", "ADDED = 1\n", {"mtcnn"}),  # imported directly
        ("extractors/audio/mel.py", "ADDED = 1\n", {"vggish", "logmel", "mfcc39"}),
        ("pipeline/decoder.py", "ADDED = 1\n", {"timeline", "mtcnn", "waveform"}),
        ("pipeline/sound.py", "ADDED = 1\n", {"waveform"}),
    ],
)
def test_code_is_what_the_extractor_imports_and_what_decodes_for_it(tmp_path: Path, file: str, edit: str, changed: set[str]) -> None:
    for package in ("extractors", "pipeline"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = {use: code_digest(use) for use in EXTRACTORS}
    with (tmp_path / file).open("a", encoding="utf-8") as edited:
        edited.write(edit)
    after = _digests(tmp_path)
    assert {use for use in EXTRACTORS if after[use] != before[use]} == changed
