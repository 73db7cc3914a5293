"""A trial that fails is a line, not the end: recorded where it would repeat, tried again where it may pass, and the others finish."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline import sound, video
from pipeline.cache import Cache

STALL_S = 1.0

OUTSIDE = """\
from dataclasses import dataclass

import numpy as np

from extractors.contract import ExtractorError, Kind, Track


@dataclass(frozen=True, kw_only=True)
class LoudnessParams:
    floor: float = 1e-6


class Loudness:
    name, version, Params, yields, decoder = "loudness", 1, LoudnessParams, Kind.FEATURE, None
    precisions, needs_weights, origin, licence, dim = ("float32",), False, "", "CC0", 1

    def __init__(self, params, runtime):
        self.params = params

    @staticmethod
    def reads(params):
        return (Kind.WAVEFORM,)

    def extract(self, waveform, row_times_s):
        if not len(waveform.samples):
            RAISE
        blocks = waveform.samples[: len(waveform.samples) // 160 * 160].reshape(-1, 160)
        values = np.log((blocks ** 2).mean(axis=1, keepdims=True) + self.params.floor).astype(np.float32)
        return Track(values=values, times_s=np.arange(len(values)) / 100 + 0.005, valid=np.ones(len(values), bool))
"""
WITH_OUTSIDE = """\
version: 1
stages:
  timeline: {use: timeline}
  audio:    {use: waveform}
  loudness: {use: "MODULE:Loudness", from: audio}
store: {rows: timeline, dtype: float32}
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes a module that anyone may bring; of a clip without sound its extractor raises what is given."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(module: str, raised: str) -> None:
        (tmp_path / f"{module}.py").write_text(OUTSIDE.replace("RAISE", raised), encoding="utf-8")
        sys.modules.pop(module, None)

    return write


def _keys(desk: Any, feature: str) -> dict[str, str]:
    with h5py.File(desk.store / "index.h5") as index, h5py.File(desk.store / f"{feature}.h5") as file:
        return dict(zip(index["trials"].asstr()[:].tolist(), file["keys"].asstr()[:].tolist(), strict=True))


def test_an_outside_extractor_that_breaks_is_one_failed_trial(
    outside: Callable[[str, str], None], some_clips: Callable[..., Any], new_desk: Callable[..., Any]
) -> None:
    """What is no ExtractorError is a defect: it is named with its place, and the next run tries again."""
    outside("breaking_loudness", 'raise KeyError("no sound")')
    desk = new_desk(some_clips("106", "207")[0], stages=WITH_OUTSIDE.replace("MODULE", "breaking_loudness"))
    result = desk.run(status=1)
    assert result["computed"] == {"timeline": 2, "audio": 2, "loudness": 1}
    row = desk.failures()["207"]
    assert (row["stage"], row["severity"]) == ("loudness", "error")
    assert "KeyError: 'no sound' (at breaking_loudness.py:" in row["why"]
    keys = _keys(desk, "loudness")
    assert (bool(keys["106"]), bool(keys["207"])) == (True, False)
    assert list(Cache(desk.cache).failures()) == []
    outside("breaking_loudness", "return Track(values=np.zeros((0, 1), np.float32), times_s=np.zeros(0), valid=np.zeros(0, bool))")
    assert desk.run()["computed"] == {"loudness": 1}
    assert all(_keys(desk, "loudness").values())


def test_an_expected_failure_is_recorded_and_retried_when_asked(
    outside: Callable[[str, str], None], some_clips: Callable[..., Any], new_desk: Callable[..., Any]
) -> None:
    outside("refusing_loudness", 'raise ExtractorError("no loudness", why="there is no sound", fix="leave it out")')
    desk = new_desk(some_clips("106", "207")[0], stages=WITH_OUTSIDE.replace("MODULE", "refusing_loudness"))
    assert desk.run(status=1)["computed"]["loudness"] == 1
    recorded = list(Cache(desk.cache).failures())
    assert [stage for stage, _, _ in recorded] == ["loudness"]
    found = {row["stage"]: row for row in desk.here("status", "--json").json["stages"]}
    assert (found["loudness"]["done"], found["loudness"]["failed"], found["loudness"]["missing"]) == (1, 1, 0)
    assert "no loudness: there is no sound" in desk.here("why", "--json", arguments=["207", "loudness"]).json["failure"]
    again = desk.run(status=1)
    assert (again["computed"], again["failures"][0]["what"]) == ({}, "no loudness"), "not tried again, and still said"
    outside("refusing_loudness", "return Track(values=np.zeros((0, 1), np.float32), times_s=np.zeros(0), valid=np.zeros(0, bool))")
    assert desk.run(status=1)["computed"] == {}
    assert desk.run("--retry-failed")["computed"] == {"loudness": 1}
    assert list(Cache(desk.cache).failures()) == []
    assert desk.failures().keys() == {"207"}, "a warning: it has no sound"
    assert desk.failures()["207"]["severity"] == "warning"


def _stand_in(path: Path, real: str, when: str, does: str) -> str:
    """A program that does something else where its arguments name a certain file, and is the real one for all others."""
    path.write_text(f'#!/bin/sh\ncase "$*" in *{when}*) {does};; esac\nexec "{real}" "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return str(path)


# Runs the decoder, in which opening one file does something else.
BAD_DECODER = """\
import os, runpy, signal, sys, time

import av

opened = av.open

def open_or_not(file, *args, **kwargs):
    if file.endswith("207.mp4"):
        DOES
    return opened(file, *args, **kwargs)

av.open = open_or_not
sys.argv = sys.argv[sys.argv.index("pipeline.decoder") :]
runpy.run_module("pipeline.decoder", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("does", "what", "why", "passing"),
    [
        ("time.sleep(600)", "the decoder hangs", f"no output for {STALL_S:g} s", True),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the decoder crashed", "exit status -11", False),
    ],
    ids=["hangs", "crashes"],
)
def test_a_bad_decoder_is_one_failed_trial(
    does: str,
    what: str,
    why: str,
    passing: bool,
    some_clips: Callable[..., Any],
    new_desk: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    desk = new_desk(some_clips("106", "207")[0])
    (tmp_path / "bad_decoder.py").write_text(BAD_DECODER.replace("DOES", does), encoding="utf-8")
    instead = f'exec "{sys.executable}" -P "{tmp_path / "bad_decoder.py"}" "$@"'
    with monkeypatch.context() as patched:
        patched.setattr(video, "STALL_S", STALL_S)
        patched.setattr(sys, "executable", _stand_in(tmp_path / "python", sys.executable, "pipeline.decoder", instead))
        result = desk.run(status=1)
    assert result["computed"] == {"timeline": 1, "audio": 1, "logmel": 1, "mfcc39": 1}
    assert desk.failures().keys() == {"207"}
    row = desk.failures()["207"]
    assert (row["stage"], row["what"]) == ("timeline", what)
    assert why in row["why"]
    assert {stage for stage, _, _ in Cache(desk.cache).failures()} == (set() if passing else {"timeline", "audio"})
    assert desk.run(*(() if passing else ("--retry-failed",)))["computed"] == {"timeline": 1, "audio": 1, "logmel": 1, "mfcc39": 1}


def test_a_hanging_ffmpeg_is_one_failed_trial(
    some_clips: Callable[..., Any], new_desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    real = shutil.which("ffmpeg") or sound.ffmpeg_binary()
    _stand_in(tmp_path / "bin" / "ffmpeg", real, "video44_2.mp4", "exec sleep 600")
    desk = new_desk(some_clips("106", "video44_2")[0])
    with monkeypatch.context() as patched:
        patched.setattr(sound, "STALL_S", STALL_S)
        patched.setenv("PATH", str(tmp_path / "bin"), prepend=":")
        sound.ffmpeg_binary.cache_clear()
        result = desk.run(status=1)
    sound.ffmpeg_binary.cache_clear()
    assert result["computed"] == {"timeline": 2, "audio": 1, "logmel": 1, "mfcc39": 1}
    row = desk.failures()["video44_2"]
    assert (row["stage"], row["what"]) == ("audio", "ffmpeg hangs")
    assert bool(_keys(desk, "logmel")["106"])
    assert desk.run()["computed"] == {"audio": 1, "logmel": 1, "mfcc39": 1}, "it may pass, so it was not recorded"
