"""A disk that is full, really: a small file system in memory under the cache, the store or the temporary files."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from processes import left_of, started

PLACES = ["inline", "local:2"]


class Disk:
    """A file system of so many bytes, mounted on a folder of its own."""

    def __init__(self, folder: Path, n_bytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "-o", f"size={n_bytes}", "affectpipe-test", str(folder))

    def grow(self, n_bytes: int) -> None:
        _mount("-o", f"remount,size={n_bytes}", str(self.folder))


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = f"cannot mount a file system: {done.stderr.strip()}"
        pytest.fail(f"{reason}, and CI must not skip it") if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture
def disk() -> Iterator[Callable[[Path, int], Disk]]:
    """disk(folder, n_bytes)"""
    mounted: list[Disk] = []

    def new(folder: Path, n_bytes: int) -> Disk:
        mounted.append(Disk(folder, n_bytes))
        return mounted[-1]

    yield new
    for one in mounted:
        subprocess.run(["umount", "--lazy", str(one.folder)], check=True)


def ended(desk: Desk, place: str, status: int, **given: Any) -> list[str]:
    """What a run that ends so has said of errors."""
    said = desk.stages.with_suffix(".said")
    said.unlink(missing_ok=True)
    run = started(desk, "--on", place, said=said, **given)
    assert run.wait() == status, said.read_text()
    assert "Traceback" not in said.read_text()
    assert left_of(desk) == {}
    return [line for line in said.read_text().splitlines() if line.startswith("error: ")]


def verified(desk: Desk, command_line: Callable[..., Any]) -> int:
    """How many files there are, none of which is damaged."""
    done = command_line("verify", "--json", "--cache", desk.cache, *(("--store", desk.store) if desk.store.is_dir() else ()))
    assert (done.status, done.json["damaged"]) == (0, []), done.out + done.err
    return int(done.json["n_files"])


@pytest.mark.parametrize("place", PLACES)
def test_a_full_cache(
    place: str,
    busy_desk: Callable[..., Desk],
    disk: Callable[[Path, int], Disk],
    command_line: Callable[..., Any],
    assert_as_undisturbed: Callable[[Desk], None],
) -> None:
    """It fills in the middle of the work; with room made, the rest is done."""
    desk = busy_desk()
    small = disk(desk.cache, 900 << 10)
    (error,) = ended(desk, place, 1)
    assert error.startswith(f"error: {desk.cache}")
    assert error.endswith(": cannot be written: No space left on device; make room or mend the permissions there, then run again")
    assert verified(desk, command_line) > 8
    small.grow(64 << 20)
    assert ended(desk, place, 0) == []
    assert_as_undisturbed(desk)
    assert list(desk.cache.rglob("*.claim")) == []


@pytest.mark.parametrize("place", PLACES)
def test_a_full_store(
    place: str,
    busy_desk: Callable[..., Desk],
    disk: Callable[[Path, int], Disk],
    command_line: Callable[..., Any],
    assert_as_undisturbed: Callable[[Desk], None],
) -> None:
    """All is computed, and nothing of it again."""
    desk = busy_desk()
    small = disk(desk.store, 64 << 10)
    (error,) = ended(desk, place, 1)
    assert error.startswith(f"error: {desk.store}")
    assert "cannot be written: No space left on device" in error
    n_files = verified(desk, command_line)
    small.grow(8 << 20)
    assert ended(desk, place, 0) == []
    assert "nothing had to run: every track was in the cache" in desk.stages.with_suffix(".said").read_text()
    assert verified(desk, command_line) > n_files
    assert_as_undisturbed(desk)


@pytest.mark.parametrize("place", PLACES)
def test_full_temporary_files(
    place: str,
    busy_desk: Callable[..., Desk],
    disk: Callable[[Path, int], Disk],
    command_line: Callable[..., Any],
    assert_as_undisturbed: Callable[[Desk], None],
    trouble: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An extractor needs more of them than there is room for."""
    desk = busy_desk()
    folder = desk.stages.with_name("temporary")
    small = disk(folder, 512 << 10)
    monkeypatch.setenv("TMPDIR", str(folder))
    trouble("use_temporary_space")
    (error,) = ended(desk, place, 1)
    assert error == (
        "error: 207.mp4: could not be computed: [Errno 28] No space left on device;"
        f" make room, in {folder} perhaps, where temporary files are, then run again"
    )
    verified(desk, command_line)
    small.grow(64 << 20)
    trouble("use_temporary_space")
    assert ended(desk, place, 0) == []
    assert_as_undisturbed(desk)
