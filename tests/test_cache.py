"""The cache: what is done, missing, damaged or known to fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from extractors.contract import Track
from pipeline.artifact import Provenance, read_about, write_track
from pipeline.cache import Cache, State
from pipeline.errors import Problem, Severity
from pipeline.hdf5 import CorruptFileError, sealed_file
from pipeline.keys import identity, key_of, stage_part

STAGE = "arcface"
PART = stage_part(extractor="made_up", version=1, params={}, precision="float32", weights=None, decoder=None)


def put(cache: Cache, source: str = "aa", *, at: str | None = None) -> str:
    """Write one small artifact, by default where it belongs. Returns the key it is written under."""
    who = identity(PART, source=source, person="left", pictures=None, inputs=[])
    about = Provenance(key=key_of(who), stage=STAGE, trial="106_left", licence="", code="", identity=who, seconds=2.5, warnings=["dark"])
    key = at or about.key
    track = Track(values=np.ones((2, 1), np.float32), times_s=np.arange(2.0), valid=np.ones(2, np.bool_))
    write_track(cache.path(STAGE, key), about, track=track)
    return key


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def flip(path: Path, *, byte: int = -1) -> None:
    """Change one byte in place, a moment later: a clock's tick may be 4 ms."""
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    time.sleep(0.02)
    with path.open("r+b") as file:
        file.write(data)


def test_what_was_never_made_is_missing(cache: Cache) -> None:
    assert cache.state(STAGE, "0" * 64) is State.MISSING
    assert list(cache.artifacts()) == list(cache.failures()) == []
    assert not cache.root.exists()  # asking writes nothing


def test_a_whole_artifact_is_done_and_remembered(cache: Cache) -> None:
    key = put(cache)
    assert cache.state(STAGE, key) is State.DONE
    data = read_about(cache.path(STAGE, key))["data"]
    seal = {
        "data": data,
        "warnings": ["dark"],
        "source": "aa",
        "person": "left",
        "trial": "106_left",
        "seconds": 2.5,
        "finding": "",
        "found_in": "",
        "n_rows": 2,
    }
    assert cache.known(STAGE, key) == seal
    cache.save()
    assert dict(Cache(cache.root).seals(STAGE).values()) == {key: seal}


def test_a_remembered_artifact_is_not_read_again(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    key = put(cache)
    cache.state(STAGE, key)
    cache.save()

    def read(path: Path) -> bool:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("pipeline.cache.is_whole", read)
    assert Cache(cache.root).state(STAGE, key) is State.DONE


def test_a_file_changed_in_place_after_it_was_sealed_is_noticed(cache: Cache) -> None:
    key = put(cache)
    assert cache.state(STAGE, key) is State.DONE
    flip(cache.path(STAGE, key))
    assert cache.state(STAGE, key) is State.CORRUPT
    with pytest.raises(CorruptFileError, match="changed since it was written"):
        cache.known(STAGE, key)
    cache.save()
    assert Cache(cache.root).state(STAGE, key) is State.CORRUPT
    put(cache)
    assert cache.state(STAGE, key) is State.DONE  # made anew


@pytest.mark.parametrize("keep", [0, 1, 300])
def test_a_truncated_artifact_is_damaged(cache: Cache, keep: int) -> None:
    path = cache.path(STAGE, put(cache))
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.state(STAGE, path.stem) is State.CORRUPT


def test_an_artifact_of_another_key_is_damaged(cache: Cache) -> None:
    """A whole file, but not the one that is asked for."""
    assert cache.state(STAGE, put(cache, at="0" * 64)) is State.CORRUPT


def test_a_whole_file_of_another_format_is_damaged(cache: Cache) -> None:
    path = cache.path(STAGE, "1" * 64)
    path.parent.mkdir(parents=True)
    with sealed_file(path) as file:
        file.attrs["format"] = "affectpipe/track"
        file.attrs["format_version"] = 1
    assert cache.state(STAGE, "1" * 64) is State.CORRUPT


def test_a_failure_is_recorded_and_told_as_it_was(cache: Cache) -> None:
    problem = Problem(what="no video stream", where="a/b ü.mp4", why="it is a text", fix="remove it")
    cache.record_failure(STAGE, "2" * 64, problem, "106")
    assert cache.state(STAGE, "2" * 64) is State.FAILED
    told = Cache(cache.root).failure(STAGE, "2" * 64)
    assert told == problem
    assert told.severity is Severity.ERROR  # a plain "error" would not count as one
    assert [(stage, key) for stage, key, _ in cache.failures()] == [(STAGE, "2" * 64)]
    cache.forget_failure(STAGE, "2" * 64)
    cache.forget_failure(STAGE, "2" * 64)
    assert cache.state(STAGE, "2" * 64) is State.MISSING


def test_an_artifact_outdoes_a_failure(cache: Cache) -> None:
    key = put(cache)
    cache.record_failure(STAGE, key, Problem(what="x", where="", why="", fix=""), "106")
    assert cache.state(STAGE, key) is State.DONE


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"problem": 3}', '{"problem": {"what": "x"}}', '{"problem": {"severity": "?"}}']
)
def test_a_failure_whose_record_is_damaged_is_still_one(cache: Cache, text: str) -> None:
    path = cache.failure_path(STAGE, "3" * 64)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert cache.state(STAGE, "3" * 64) is State.FAILED
    told = cache.failure(STAGE, "3" * 64)
    assert (told.what, told.fix, told.severity) == ("failed before", "run with --retry-failed", Severity.ERROR)
    assert "its record cannot be read" in told.why


def test_only_finished_files_are_listed(cache: Cache) -> None:
    keys = sorted([put(cache, "aa"), put(cache, "bb")])
    folder = cache.path(STAGE, keys[0]).parent
    (folder / f".tmp-1-2-{keys[0]}.h5").write_text("half")
    (folder / f".tmp-1-2-{keys[0]}.failed.json").write_text("half")
    (cache.root / STAGE / "notes").mkdir()
    (cache.root / STAGE / "notes" / "x.h5").write_text("")
    assert [(stage, key) for stage, key, _ in cache.artifacts()] == [(STAGE, key) for key in keys]
    assert [path for *_, path in cache.artifacts(STAGE)] == [cache.path(STAGE, key) for key in keys]
    assert list(cache.artifacts("vggish")) == []
    assert list(cache.failures()) == []


def test_a_lost_memory_costs_a_reading_only(cache: Cache) -> None:
    key = put(cache)
    cache.state(STAGE, key)
    cache.save()
    (cache.root / STAGE / "seals.json").write_text("{ damaged")
    assert Cache(cache.root).state(STAGE, key) is State.DONE


def test_old_temporaries_are_swept(cache: Cache) -> None:
    path = cache.path(STAGE, put(cache))
    left = path.with_name(f".tmp-1-2-{path.name}")
    left.write_text("half")
    os.utime(left, (0, 0))
    assert cache.sweep() == 1
    assert cache.state(STAGE, path.stem) is State.DONE
