"""A user's desk: videos, labels, a stages file, a cache and a store, worked on through the real command line. Fixtures for all tests."""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import linecache
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.artifact import read_about
from pipeline.cache import Cache
from pipeline.cli import main
from pipeline.hdf5 import is_whole
from pipeline.sample import write_sample

REPOSITORY = Path(__file__).resolve().parents[1]
PLUGIN = Path(__file__).with_name("e2e") / "outside.py"
COMMAND = Path(sys.executable).with_name("affectpipe")
SAMPLE_S = 1.5  # the shortest length at which every clip with sound has a tone
LIMIT_S = 900  # for a machine that is busy with other things; the longest command takes half a minute of one core
# One thread each: the networks' layers are so small that several only wait for each other. Set before anything loads torch, and
# handed on to the commands that run apart.
os.environ["OMP_NUM_THREADS"] = "1"

# No faces: what a frame-exact timeline and sound need, and so quick.
LIGHT = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  audio:    {use: waveform}
  logmel:   {use: logmel, from: audio}
  mfcc39:   {use: mfcc39, from: audio}
store:
  rows: labels
  dtype: float32
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An ended command: its exit status and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """labels: None for videos without any."""

    videos: Path
    stages: Path
    cache: Path
    store: Path
    labels: Path | None = None

    def argv(self, command: str, *options: str | Path, arguments: Sequence[str] = ()) -> list[str]:
        """The words of a command; arguments: those that come after the videos."""
        labels = ("--labels", self.labels) if self.labels else ()
        words: list[str | Path] = [command, "--stages", self.stages, "--cache", self.cache, "--store", self.store, *labels, *options]
        return [os.fspath(word) for word in (*words, "--", self.videos, *arguments)]

    def apart(self, command: str, *options: str | Path, arguments: Sequence[str] = ()) -> Done:
        """In a process of its own, through the installed console script."""
        return apart(self.argv(command, *options, arguments=arguments))

    def here(self, command: str, *options: str | Path, arguments: Sequence[str] = ()) -> Done:
        """In this process, which has torch loaded already. An exception that the command lets through is the test's."""
        return here(self.argv(command, *options, arguments=arguments))

    def run(self, *options: str | Path, status: int = 0) -> dict[str, Any]:
        """`run --json` in this process, ending with the expected status: its result."""
        done = self.here("run", "--json", *options)
        assert done.status == status, f"expected exit status {status}, got {done.status}: {done.out}{done.err}"
        return dict(done.json)

    def write_stages(self, text: str) -> None:
        self.stages.write_text(text, encoding="utf-8")

    def store_state(self) -> dict[str, tuple[str, int]]:
        """Per file of the store the digest of its bytes and its time."""
        files = sorted(path for path in self.store.iterdir() if not path.name.startswith("."))
        return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}

    def store_data(self) -> dict[str, np.ndarray[Any, Any]]:
        """Every dataset of every file of the store, by file and name."""
        found: dict[str, np.ndarray[Any, Any]] = {}
        for path in sorted(path for path in self.store.glob("*.h5") if not path.name.startswith(".")):
            with h5py.File(path) as file:
                file.visititems(
                    lambda name, item, path=path: found.update({f"{path.stem}/{name}": item[()]} if isinstance(item, h5py.Dataset) else {})
                )
        return found

    def tracks(self, stage: str) -> dict[str, Path]:
        """Per trial (the first of those that share it) the stage's artifact; a desk whose stage has run once has one each."""
        return {read_about(path)["trial"]: path for _, _, path in Cache(self.cache).artifacts(stage)}

    def failures(self) -> dict[str, dict[str, str]]:
        """failures.csv by trial: one line each."""
        with (self.store / "failures.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len({row["trial"] for row in rows}) == len(rows), "a trial has several lines"
        return {row["trial"]: row for row in rows}

    def visible_files(self) -> list[Path]:
        """Every HDF5 file that a reader would take for finished."""
        found = [path for root in (self.cache, self.store) for path in root.rglob("*.h5")]
        return [path for path in found if not path.name.startswith(".")]


def apart(argv: Sequence[str]) -> Done:
    words = [os.fspath(COMMAND), *argv]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return Done(status=done.returncode, out=done.stdout, err=done.stderr)


def here(argv: Sequence[str]) -> Done:
    done = CliRunner().invoke(main, list(argv))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Done(status=done.exit_code, out=done.stdout, err=done.stderr)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The sample data and what is true of it, per video and per trial."""

    videos: Path
    labels: Path
    truth: dict[str, Any]

    @property
    def clips(self) -> dict[str, Any]:
        return dict(self.truth["videos"])


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One clip of every kind."""
    made = write_sample(tmp_path_factory.mktemp("sample") / "data", clips=8, seconds=SAMPLE_S)
    return Sample(videos=made.videos, labels=made.labels, truth=json.loads(made.truth.read_text(encoding="utf-8")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's time counts its fixtures', and whichever test is first makes the long run for all."""
    for item in items:
        if "full" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(LIMIT_S + 60))


@pytest.fixture(scope="session")
def default_stages() -> str:
    """The repository's own stages file, and opensmile's descriptors beside it."""
    text = (REPOSITORY / "stages.yaml").read_text(encoding="utf-8")
    return text.replace("store:\n", "  egemaps:  {use: egemaps_lld, from: audio}\nstore:\n", 1)


@pytest.fixture(scope="session")
def full(sample: Sample, default_stages: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, Done]:
    """All sample clips through all of that, in a process of its own; not to be changed, `copied` gives one's own."""
    root = tmp_path_factory.mktemp("full")
    desk = _desk(root, sample.videos, sample.labels)
    desk.write_stages(default_stages)
    return desk, desk.apart("run", "--json")


@pytest.fixture(scope="session")
def light(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """All sample clips through the stages that need no faces, run once; not to be changed, `copied` gives one's own."""
    desk = _desk(tmp_path_factory.mktemp("light"), sample.videos, sample.labels)
    desk.write_stages(LIGHT)
    desk.run()
    return desk


def _desk(root: Path, videos: Path, labels: Path | None) -> Desk:
    return Desk(videos=videos, labels=labels, stages=root / "stages.yaml", cache=root / "cache", store=root / "store")


@pytest.fixture
def new_desk(tmp_path: Path) -> Callable[..., Desk]:
    """A desk with nothing computed yet. stages: the text of its stages file."""

    def new(videos: Path, labels: Path | None = None, *, stages: str = LIGHT, name: str = "desk") -> Desk:
        (tmp_path / name).mkdir()
        desk = _desk(tmp_path / name, videos, labels)
        desk.write_stages(stages)
        return desk

    return new


@pytest.fixture
def copied(tmp_path: Path) -> Callable[[Desk], Desk]:
    """One's own copy of a desk: its stages file, cache and store, with their times. Videos and labels stay where they are."""

    def copy(desk: Desk) -> Desk:
        root = tmp_path / "copy"
        shutil.copytree(desk.stages.parent, root)
        return replace(desk, stages=root / "stages.yaml", cache=root / "cache", store=root / "store")

    return copy


@pytest.fixture
def some_clips(sample: Sample, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """A folder of videos and one of labels with copies of the named clips only."""

    def some(*names: str) -> tuple[Path, Path]:
        videos, labels = tmp_path / "some" / "videos", tmp_path / "some" / "labels"
        videos.mkdir(parents=True)
        for name in names:
            shutil.copy2(sample.videos / f"{name}.mp4", videos)
            for trial in sample.clips[name]["trials"]:
                found = next(sample.labels.rglob(f"{trial}.txt"))
                target = labels / found.relative_to(sample.labels)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, target)
        return videos, labels

    return some


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A module from outside, a copy of outside.py. `use` names one of its classes in a stages file."""

    name: str
    folder: Path

    @property
    def calls(self) -> list[str]:
        """What its classes were asked to do since it was last written."""
        path = self.folder / f"{self.name}.calls"
        return path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []

    def use(self, name: str) -> str:
        return f'"{self.name}:{name}"'

    def write(self, *, value: float = 1.0, refuse: bool = False) -> None:
        """The module anew, with another value in its code or refusing everything; whoever uses it next in this process gets it."""
        (self.folder / f"{self.name}.calls").unlink(missing_ok=True)
        text, n = re.subn("^VALUE, REFUSE = .*$", f"VALUE, REFUSE = {value!r}, {refuse!r}", PLUGIN.read_text("utf-8"), flags=re.MULTILINE)
        assert n == 1
        (self.folder / f"{self.name}.py").write_text(text, encoding="utf-8")
        sys.modules.pop(self.name, None)
        importlib.invalidate_caches()
        linecache.checkcache()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plugin]:
    """A module of one's own. A process imports a name once, so whoever had it before is forgotten."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    made = Plugin(name="brought_along", folder=folder)
    monkeypatch.syspath_prepend(folder)
    # A file rewritten within one second may have its old byte code's time and size.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    made.write()
    yield made
    sys.modules.pop(made.name, None)


@pytest.fixture
def trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """trouble(KIND, TIMES): what the extractors of troubles.py meet from now on, in whatever process."""
    path = tmp_path / "trouble"
    monkeypatch.setenv("TROUBLE", str(path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)

    def cause(kind: str | int, times: int = 1) -> None:
        path.write_text("\n".join([str(kind)] * times), encoding="utf-8")

    return cause


@pytest.fixture(scope="session")
def command_line() -> Callable[..., Done]:
    """Any command apart, by its words."""
    return lambda *words: apart([os.fspath(word) for word in words])


@pytest.fixture(scope="session")
def assert_all_whole() -> Callable[[Desk], int]:
    """Every visible file of the desk is as it was sealed; returns how many there are."""

    def check(desk: Desk) -> int:
        files = desk.visible_files()
        assert [path for path in files if not is_whole(path)] == []
        return len(files)

    return check


@pytest.fixture(scope="session")
def assert_same_data() -> Callable[[Mapping[str, Any], Mapping[str, Any]], None]:
    """Two stores hold the same datasets, bit for bit."""

    def check(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
        assert got.keys() == expected.keys()
        types = {name: (values.dtype, values.shape) for name, values in expected.items()}
        assert {name: (values.dtype, values.shape) for name, values in got.items()} == types
        assert [name for name in expected if got[name].tobytes() != expected[name].tobytes()] == []

    return check


@pytest.fixture(scope="session")
def command_path() -> Path:
    return COMMAND


@pytest.fixture(scope="session")
def write_crops() -> Callable[[Path, Sequence[int]], None]:
    """Organisers' crops into a folder, for the given source frames; every one differs, so that a feature tells which it is of."""
    import cv2

    def write(folder: Path, frames: Sequence[int]) -> None:
        folder.mkdir(parents=True)
        for frame in frames:
            small = np.random.default_rng(frame).integers(0, 256, (7, 7, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f"{frame + 1:05d}.jpg"), cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC))

    return write
