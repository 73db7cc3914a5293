"""HDF5 files that nobody needs to trust: opened without locks, walked for traps, sealed by a checksum over every byte.

A hostile file can make a reader open other files (external links, external storage, virtual datasets) or run into object types;
all are refused before a dataset is read. So is what would take more memory than the file has bytes: none of ours is compressed.
See docs/formats.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CHECKSUM = "checksum"
_BLANK = "sha256:" + "0" * 64
_SEAL = re.compile(rb"sha256:[0-9a-f]{64}")


class CorruptFileError(Exception):
    """The file is not what was written: truncated, changed, or never one of ours."""


@contextlib.contextmanager
def sealed_file(path: Path) -> Iterator[h5py.File]:
    """A new file to fill; on leaving, its root attribute `checksum` becomes the sha256 of all its bytes, itself read as zeros.

    Raises OSError where it cannot be written.
    """
    with _NewFile(path, "w+") as new:
        with h5py.File(new, "w", libver="earliest", track_order=False) as file:
            file.attrs[CHECKSUM] = np.bytes_(_BLANK.encode())
            yield file
        if new.error is not None:
            raise new.error
    with path.open("r+b") as raw, mmap.mmap(raw.fileno(), 0) as view:
        places = [match.start() for match in _SEAL.finditer(view)]
        at = view.find(_BLANK.encode())
        if places != [at]:
            raise ValueError(f"{path}: expected one text like a checksum, the blank one, got {len(places)}; name digests without 'sha256:'")
        digest = hashlib.sha256(view).hexdigest()
        view[at : at + len(_BLANK)] = f"sha256:{digest}".encode()


class _NewFile(io.FileIO):
    """A file that HDF5 writes to. It is told of no error, and the first is kept: HDF5 does not close a file that it cannot write, for want
    of room, and crashes over it when the process ends.

    Nor does it mind being closed: a process that is told to stop while HDF5 opens or closes its file leaves that to be closed by chance,
    later, when nobody wants it any more.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        with self._kept():
            while rest and self.error is None and not self.closed:
                rest = rest[super().write(rest) :]
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        with self._kept():
            if not self.closed:
                super().truncate(size)
        return size or 0

    def readinto(self, buffer: Any) -> int:
        n_bytes = 0 if self.closed else super().readinto(buffer)
        return n_bytes if self.error is None and not self.closed else len(buffer)  # what could not be written can be anything

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return 0 if self.closed else super().seek(offset, whence)

    def flush(self) -> None:
        if not self.closed:
            super().flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def is_whole(path: Path) -> bool:
    """Whether every byte is as it was sealed. Reads the whole file, but never as HDF5: a damaged one can make HDF5 loop for ever."""
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as raw, mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        seals = list(_SEAL.finditer(view))
        if len(seals) != 1:
            return False
        stored, at = seals[0].group(), seals[0].start()
        del seals  # a match holds on to the map, which could not be closed
        view[at : at + len(stored)] = _BLANK.encode()
        return stored == f"sha256:{hashlib.sha256(view).hexdigest()}".encode()


@contextlib.contextmanager
def guarded_file(path: Path) -> Iterator[h5py.File]:
    """Open to read. Raises CorruptFileError where it is no HDF5 file, reaches outside itself or claims more data than it has bytes.

    A CorruptFileError that the body raises is passed on with the file's name.
    """
    try:
        file = h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFileError(f"{path}: {error}") from error
    with file:
        try:
            _refuse_traps(file, path)
        except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:  # what h5py raises on damaged or exotic objects
            raise CorruptFileError(f"{path}: {error}") from error
        try:
            yield file
        except CorruptFileError as error:
            if str(path) in str(error):
                raise
            raise CorruptFileError(f"{path}: {error}") from error


def _refuse_traps(file: h5py.File, path: Path) -> None:
    n_bytes = path.stat().st_size
    pending: list[h5py.Group] = [file]
    seen = {_address(file)}  # hard links can make a circle
    while pending:
        group = pending.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise CorruptFileError(f"{path}: {group.name}/{name} is a {type(link).__name__}, which may lead outside the file")
            item = group[name]
            if isinstance(item, h5py.Group):
                if _address(item) not in seen:
                    seen.add(_address(item))
                    pending.append(item)
            elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual or item.dtype.hasobject:
                raise CorruptFileError(f"{path}: {group.name}/{name} is not a plain dataset inside the file")
            elif item.chunks is not None:  # and so perhaps compressed: a small file could fill the memory
                raise CorruptFileError(f"{path}: {group.name}/{name} is chunked, expected contiguous and uncompressed data")
            elif item.nbytes > n_bytes:
                raise CorruptFileError(f"{path}: {group.name}/{name} claims {item.nbytes} bytes, the file has {n_bytes}")


def _address(group: h5py.Group) -> int:
    return int(h5py.h5o.get_info(group.id).addr)


def text_attr(attrs: Mapping[str, Any], name: str) -> str:
    """A text attribute. Raises CorruptFileError where it is missing or not text."""
    value = attrs.get(name)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        raise CorruptFileError(f"the attribute {name!r} is missing or not text")
    return value


def write_texts(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    """A dataset of fixed-length UTF-8, which `dataset.asstr()[:]` reads."""
    encoded = [text.encode() for text in texts]
    width = max((len(text) for text in encoded), default=1) or 1
    group.create_dataset(name, data=np.array(encoded, h5py.string_dtype("utf-8", width)))


def read_texts(group: h5py.Group, name: str) -> list[str]:
    return [str(text) for text in group[name].asstr()[:]]
