"""What was once read from a file, remembered for as long as the file's size, time and inode stay the same.

It saves reading every video to know its digest, and every artifact to know that it is whole. It is only a memory: where it is
lost, or another client's is newer, the file is read again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.publish import publish_text

SETTLE_NS = 2_000_000_000  # a file written this recently may change once more within its clock's resolution


FileState = tuple[int, int, int]  # size, time of modification in ns, inode: while they stay, so do the bytes


def state_of(path: Path) -> FileState:
    """Raises OSError."""
    return _state(path.stat())


def _state(stat: os.stat_result) -> FileState:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


class StatMemo:
    """name -> value, valid for one state of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = _load(path)
        self._changed: dict[str, Any] = {}

    def get(self, name: str, stat: os.stat_result) -> Any:
        """The remembered value, or None where the file is not as it was."""
        entry = self._entries.get(name)
        if entry is None or entry[0] != stat.st_size or entry[1] != stat.st_mtime_ns or entry[2] != stat.st_ino:
            return None
        return entry[3]

    def put(self, name: str, stat: os.stat_result, value: Any, *, settled: bool = False) -> None:
        """Remember. A file that changed a moment ago is not remembered, unless the caller knows that nobody writes to it (settled)."""
        if settled or time.time_ns() - stat.st_mtime_ns > SETTLE_NS:
            self.put_state(name, _state(stat), value)

    def put_state(self, name: str, state: FileState, value: Any) -> None:
        """As `put` of a settled file, whose state was taken elsewhere."""
        self._entries[name] = self._changed[name] = [*state, value]

    def values(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of all that is remembered, whether or not the files are still so."""
        return ((name, entry[3]) for name, entry in self._entries.items())

    def forget(self, name: str) -> None:
        if self._entries.pop(name, None) is not None:
            self._changed[name] = None

    def save(self) -> None:
        """Publish what changed, on top of what other clients saved meanwhile."""
        if self._changed:
            merged = {name: entry for name, entry in {**_load(self.path), **self._changed}.items() if entry is not None}
            publish_text(self.path, json.dumps(merged, separators=(",", ":")))
            self._changed = {}


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # a lost memory costs time, never truth
    well_formed = isinstance(data, dict) and all(isinstance(entry, list) and len(entry) == 4 for entry in data.values())
    return data if well_formed else {}
