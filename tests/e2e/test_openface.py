"""Action units through the command line: from tables that lie there, and from a program that makes them; a script stands for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from extractors.visual.openface import ALL

STAGES = """\
version: 1
stages:
  timeline: {use: timeline, rate_hz: native}
  units: {use: openface, WHERE}
store: {rows: timeline, dtype: float32}
"""
# A table as OpenFace writes it, in which the first intensity tells the frame; every fifth frame's face was not found.
WRITE = """
def table(n, columns):
    names = ["frame", "face_id", "timestamp", "confidence", "success", *columns]
    lines = [",".join(names)]
    for frame in range(1, n + 1):
        found = frame % 5 != 0
        known = {"frame": frame, "success": int(found), "confidence": 0.9 * found, "AU01_r": frame / 100 * found}
        lines.append(",".join(str(known.get(name, 0)) for name in names))
    return "\\n".join(lines) + "\\n"
"""
PROGRAM = """#!{python}
import pathlib, sys
{write}
source, folder = pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[4])
with open({calls!r}, "a") as calls:
    calls.write(source.stem + "\\n")
(folder / f"{{source.stem}}.csv").write_text(table({frames!r}[source.stem], {columns!r}))
"""


def table(n: int, columns: Sequence[str] = ALL[:-1]) -> str:
    scope: dict[str, Any] = {}
    exec(WRITE, scope)
    return str(scope["table"](n, columns))


@pytest.fixture
def clips(sample: Any) -> dict[str, int]:
    """Two clips, one of them of two people, with how many frames they have."""
    two = next(name for name, clip in sample.clips.items() if clip["kind"] == "two_people")
    one = next(name for name, clip in sample.clips.items() if clip["kind"] != "two_people" and len(clip["trials"]) == 1)
    return {name: int(sample.clips[name]["n_frames"]) for name in (one, two)}


@pytest.fixture
def program(tmp_path: Path, clips: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """A program named by $OPENFACE that writes a table for each; returns for which it was called."""
    path, calls = tmp_path / "bin" / "FeatureExtraction", tmp_path / "calls"
    path.parent.mkdir()
    path.write_text(PROGRAM.format(python=sys.executable, write=WRITE, calls=str(calls), frames=clips, columns=ALL[:-1]))
    path.chmod(0o755)
    monkeypatch.setenv("OPENFACE", str(path))
    return lambda: sorted(calls.read_text().split()) if calls.exists() else []


def units(desk: Any) -> dict[str, np.ndarray]:
    found = {}
    for trial, path in desk.tracks("units").items():
        with h5py.File(path) as file:
            values, valid = file["values"][:], file["valid"][:]
            assert np.isnan(values[~valid]).all()
            found[trial] = np.where(valid, values[:, 0], np.nan)
    return found


def expected(n: int) -> np.ndarray:
    frames = np.arange(1, n + 1)
    return np.where(frames % 5, frames / 100, np.nan)


def test_made_by_the_program_once_per_video(
    clips: dict[str, int], program: Callable[[], list[str]], some_clips: Callable[..., Any], new_desk: Callable[..., Any], tmp_path: Path
) -> None:
    videos, labels = some_clips(*clips)
    desk = new_desk(videos, labels, stages=STAGES.replace("WHERE", "columns: paired"))
    assert desk.run()["computed"] == {"timeline": 2, "units": 2}
    assert program() == sorted(clips)
    found = units(desk)
    assert len(found) == 2  # the two trials of one video share a track
    for values in found.values():
        np.testing.assert_allclose(values, expected(len(values)), rtol=1e-6)
    assert sorted(map(len, found.values())) == sorted(clips.values())
    assert desk.run()["computed"] == {}
    desk.write_stages(STAGES.replace("WHERE", "columns: all"))
    assert desk.run()["computed"] == {"units": 2}
    assert len(program()) == 4
    path = tmp_path / "bin" / "FeatureExtraction"
    path.write_text(path.read_text() + "# another build\n")
    why = desk.here("why", "--json", arguments=(next(iter(desk.tracks("timeline"))), "units"))
    assert list(why.json["changed"]) == ["stage.decoder"]
    assert desk.run()["computed"] == {"units": 2}


def test_read_from_where_they_lie(
    clips: dict[str, int], sample: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any program. A trial of a person has its own table, or its video's."""
    monkeypatch.delenv("OPENFACE", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    desk = new_desk(*some_clips(*clips), stages=STAGES.replace("WHERE", "root: tables"))
    root = desk.stages.parent / "tables"
    root.mkdir()
    one, two = clips
    left, right = sorted(sample.clips[two]["trials"])
    (root / f"{one}.csv").write_text(table(clips[one] - 3))
    (root / f"{two}.csv").write_text(table(clips[two]))
    (root / f"{right}.csv").write_text(table(clips[two]).replace("0.03", "4.5"))
    assert desk.run()["computed"]["units"] == 3
    found = units(desk)
    np.testing.assert_allclose(found[one], np.append(expected(clips[one] - 3), [np.nan] * 3), rtol=1e-6)
    np.testing.assert_allclose(found[left], expected(clips[two]), rtol=1e-6)
    assert found[right][2] == 4.5
    with h5py.File(desk.tracks("units")[one]) as file:
        assert f"the table ends with frame {clips[one] - 3}, the video has {clips[one]} frames" in str(dict(file.attrs))
    assert desk.run()["computed"] == {}
    (root / f"{two}.csv").write_text(table(clips[two]).replace("0.03", "2.5"))
    assert desk.run()["computed"] == {"units": 1}


BAD: dict[str, tuple[bytes | None, str, str]] = {
    "missing": (None, "there is no table", "no NAME.csv in it"),
    "empty": (b"", "line 1 is not OpenFace's", "it names no column frame"),
    "another csv": (b"time,value\n0,1\n", "line 1 is not OpenFace's", "it names no column frame"),
    "cut short": (table(9).encode()[:-30], "line 10 is not OpenFace's", "values, the first line names 40"),
    "a wrong number": (
        table(9).replace("0.03", "7.5").encode(),
        "line 4 is not OpenFace's",
        "AU01_r is '7.5', expected a number from 0 to 5",
    ),
    "noise": (bytes(range(256)) * 9000, "line 1 is not OpenFace's", ""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_is_one_trials_failure(
    case: str, clips: dict[str, int], some_clips: Callable[..., Any], new_desk: Callable[..., Any]
) -> None:
    one, two = clips
    data, what, why = BAD[case]
    videos, _ = some_clips(*clips)
    desk = new_desk(videos, stages=STAGES.replace("WHERE", "root: tables"))
    root = desk.stages.parent / "tables"
    root.mkdir()
    (root / f"{two}.csv").write_text(table(clips[two]))
    if data is not None:
        (root / f"{one}.csv").write_bytes(data)
    assert desk.run(status=1)["computed"]["units"] == 1
    line = desk.failures()[one]
    assert (line["stage"], line["what"]) == ("units", what)
    assert why.replace("NAME", one) in line["why"]
    assert line["where"].endswith("tables" if data is None else f"{one}.csv")
    (root / f"{one}.csv").write_text(table(clips[one]))
    assert desk.run()["computed"] == {"units": 1}


def test_what_is_missing_is_told_before_anything_runs(sample: Any, new_desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENFACE", raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    desk = new_desk(sample.videos, stages=STAGES.replace(", WHERE", ""))
    done = desk.here("run")
    assert done.status == 2
    assert "there is no FeatureExtraction of OpenFace" in done.err
    assert "set OPENFACE=/path/to/FeatureExtraction, or give the stage `root: DIR`" in done.err
    assert not desk.store.exists()
    assert "there is no FeatureExtraction" in desk.here("doctor").out
    desk.write_stages(STAGES.replace("WHERE", "root: tables"))
    done = desk.here("run")
    assert done.status == 2
    assert "stages.units.root: no folder of tables: No such file or directory" in done.err


def test_a_failing_program_is_one_trials_failure(
    clips: dict[str, int], program: Callable[[], list[str]], some_clips: Callable[..., Any], new_desk: Callable[..., Any], tmp_path: Path
) -> None:
    one, _ = clips
    path = tmp_path / "bin" / "FeatureExtraction"
    path.write_text(path.read_text().replace("(folder /", f"if source.stem == {one!r}: sys.exit('ERROR: no face model')\n(folder /"))
    desk = new_desk(some_clips(*clips)[0], stages=STAGES.replace(", WHERE", ""))
    assert desk.run(status=1)["computed"]["units"] == 1
    line = desk.failures()[one]
    assert (line["what"], line["why"]) == ("FeatureExtraction gave no table", "exit status 1: ERROR: no face model")
    assert len(desk.tracks("units")) == 1
    assert program() == sorted(clips)
