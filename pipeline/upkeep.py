"""`verify` re-checks every checksum; `gc` finds what no stages file needs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.cache import Cache
from pipeline.errors import PassingError, Problem, RequestError
from pipeline.hdf5 import is_whole
from pipeline.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """How many files were read through, and those that are not as they were written."""

    n_files: int
    damaged: tuple[Path, ...]


def verify(cache: Cache, stores: Iterable[Path], told: Callable[[int, int], None] | None = None) -> Checked:
    """Read every artifact and every store file through. A damaged one is forgotten, so that the next run makes it again.

    told: called with the number of files done and of all. Raises RequestError where the cache or a store is no folder.
    """
    stores = tuple(stores)
    _require_folders(cache.root, stores)
    artifacts = list(cache.artifacts())
    files = [path for store in stores for path in sorted(store.glob("*.h5")) if path.is_file() and not path.name.startswith(".")]
    damaged: list[Path] = []
    n_files = len(artifacts) + len(files)
    for number, (stage, key, path) in enumerate(artifacts):
        if told is not None:
            told(number, n_files)
        if cache.seal(stage, key) is None:
            damaged.append(path)
    for number, path in enumerate(files, len(artifacts)):
        if told is not None:
            told(number, n_files)
        if not is_whole(path):
            damaged.append(path)
            cache.stores.forget(str(path.resolve()))
    with contextlib.suppress(PassingError):  # a memory that cannot be saved, on a full disk say, changes nothing of what was found
        cache.save()
    return Checked(n_files=n_files, damaged=tuple(damaged))


def _require_folders(cache: Path, stores: Iterable[Path]) -> None:
    named = [("cache", cache), *(("store", store) for store in stores)]
    missing = [
        Problem(what=f"no {noun} to check", where=str(path), why="there is no such folder", fix=f"name it with --{noun}")
        for noun, path in named
        if not path.is_dir()
    ]
    if missing:
        raise RequestError(missing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Files that no given plan needs."""

    paths: tuple[Path, ...]
    n_bytes: int


def garbage(cache: Cache, plans: Iterable[Plan]) -> Garbage:
    """Artifacts and failure records whose key is in none of the plans."""
    needed = {(stage, key) for plan in plans for stage, keys in plan.keys.items() for key in keys}
    paths = [path for stage, key, path in (*cache.artifacts(), *cache.failures()) if (stage, key) not in needed]
    return Garbage(paths=tuple(paths), n_bytes=sum(path.stat().st_size for path in paths))


def collect(cache: Cache, found: Garbage) -> None:
    """Remove them, and temporaries that are too old to be in anyone's hands."""
    for path in found.paths:
        path.unlink(missing_ok=True)
        if path.name.endswith(".h5"):
            cache.seals(path.parent.parent.name).forget(path.stem)
    cache.save()
    cache.sweep()
