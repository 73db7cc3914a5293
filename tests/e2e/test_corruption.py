"""Damaged files: `verify` finds and names them, `run` notices by itself and makes them again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline.hdf5 import CorruptFileError
from pipeline.store import StoreError, open_store


def _flip(path: Path) -> None:
    """One bit of one byte in the middle of the values, where no reader of HDF5 would stumble over it."""
    with h5py.File(path) as file:
        values = file["values"] if "values" in file else file["times_s"]
        at = values.id.get_offset() + values.id.get_storage_size() // 2
    with path.open("r+b") as raw:
        raw.seek(at)
        byte = raw.read(1)[0]
        raw.seek(at)
        raw.write(bytes([byte ^ 1]))


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size * 2 // 3)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _overwrite(path: Path) -> None:
    path.write_text("not HDF5 at all", encoding="utf-8")


def _artifact(desk: Any) -> tuple[Path, dict[str, int]]:
    return desk.tracks("mfcc39")["106"], {"mfcc39": 1}


def _timeline(desk: Any) -> tuple[Path, dict[str, int]]:
    return desk.tracks("timeline")["106"], {"timeline": 1}


def _feature(desk: Any) -> tuple[Path, dict[str, int]]:
    return desk.store / "mfcc39.h5", {}


def _index(desk: Any) -> tuple[Path, dict[str, int]]:
    return desk.store / "index.h5", {}


DAMAGE = [_flip, _truncate, _empty, _overwrite]
PLACES = [_artifact, _timeline, _feature, _index]


def _verify(desk: Any, command_line: Callable[..., Any]) -> Any:
    return command_line("verify", "--cache", desk.cache, "--store", desk.store, "--json")


@pytest.mark.parametrize("place", PLACES)
def test_verify_finds_what_run_mends(
    place: Callable[[Any], tuple[Path, dict[str, int]]],
    light: Any,
    copied: Callable[..., Any],
    command_line: Callable[..., Any],
    assert_all_whole: Callable[..., int],
    assert_same_data: Callable[..., None],
) -> None:
    desk = copied(light)
    desk.run()
    expected, (path, recomputed) = desk.store_data(), place(desk)
    for damage in (_flip, _truncate):
        before = path.stat()
        damage(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a failing disk would: only the bytes tell
        found = _verify(desk, command_line)
        assert (found.status, found.json["damaged"]) == (1, [str(path)])
        result = desk.run()
        assert result["computed"] == recomputed
        assert _verify(desk, command_line).status == 0
        assert_all_whole(desk)
        assert_same_data(desk.store_data(), expected)


@pytest.mark.parametrize("damage", DAMAGE)
def test_run_notices_by_itself(
    damage: Callable[[Path], None], light: Any, copied: Callable[..., Any], assert_all_whole: Callable[..., int], assert_same_data: Any
) -> None:
    """All four places at once, without `verify`."""
    desk = copied(light)
    desk.run()
    expected = desk.store_data()
    recomputed: dict[str, int] = {}
    for place in PLACES:
        path, again = place(desk)
        recomputed |= again
        damage(path)
    reasons = {row["stage"]: row["reasons"] for row in desk.here("plan", "--json").json["stages"] if row["run"]}
    assert reasons == {name: {"its file is damaged": 1} for name in recomputed}
    result = desk.run()
    assert result["computed"] == recomputed
    assert {"index.h5", "mfcc39.h5"} <= set(result["written"])
    assert_all_whole(desk)
    assert_same_data(desk.store_data(), expected)


def test_a_damaged_store_says_so_to_its_readers(light: Any, copied: Callable[..., Any]) -> None:
    desk = copied(light)
    _truncate(desk.store / "index.h5")
    with pytest.raises(StoreError, match=r"store: no store: .*truncated"):
        open_store(desk.store)


def test_lost_and_broken_memories_cost_time_only(light: Any, copied: Callable[..., Any]) -> None:
    """What the cache remembers of files beside them: without it they are read again, and nothing runs."""
    desk = copied(light)
    before = desk.store_state()
    for path in desk.cache.rglob("*.json"):
        path.unlink() if path.parent == desk.cache else path.write_text('{"half', encoding="utf-8")
    result = desk.run()
    assert (result["computed"], result["written"]) == ({}, [])
    assert desk.store_state() == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CorruptFileError("/a/b.h5: truncated"), "/a/b.h5: truncated; the file is damaged: `affectpipe verify` finds all that are"),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: a file or folder cannot be used: Permission denied; see that it is"),
        (OSError("read failed, errno = 5"), "a file or folder cannot be used: read failed, errno = 5; see that it is there"),
    ],
)
def test_no_unforeseen_error_of_a_file_is_a_traceback(light: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("pipeline.status.status", fail)
    done = light.here("status")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"error: {said}")
    assert done.err.count("\n") == 1


def test_a_defect_keeps_its_traceback(light: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.status.status", lambda *_: {}["missing"])
    with pytest.raises(KeyError, match="missing"):
        light.here("status")
