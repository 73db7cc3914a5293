"""Organisers' face pictures: `ROOT/NAME/00001.jpg` is frame 0 of trial NAME. Read one at a time, known by their bytes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import Problem
from pipeline.memo import SETTLE_NS, StatMemo

PICTURE = re.compile(r"(\d{1,9})\.(jpg|jpeg|png|bmp)", re.IGNORECASE)


def check_root(root: Path) -> Problem | None:
    """What is wrong with a folder of organisers' pictures, or None. `where` is the folder: the caller knows who names it."""
    fix = "mend `root`, which is relative to the stages file"
    try:
        with os.scandir(root) as entries:
            if any(entry.is_dir() for entry in entries):
                return None
    except OSError as error:
        return Problem(what="no folder of pictures", where=str(root), why=error.strerror or str(error), fix=fix)
    return Problem(what="no folder of pictures", where=str(root), why="it holds no folder NAME with NAME/00001.jpg", fix=fix)


class Pictures(Mapping[int, bytes]):
    """Source frame number from 0 -> the encoded picture. Each look-up reads its file; missing numbers are gaps.

    ignored: names like a picture's that are none: no regular file, a link out of the root, a second picture of one frame.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[int, Path] = {}
        ignored = []
        root = Path(os.path.realpath(folder.parent))
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = PICTURE.fullmatch(path.name)
            if match is None or int(match[1]) < 1:
                continue
            frame = int(match[1]) - 1
            if frame in self._paths or not path.is_file() or not Path(os.path.realpath(path)).is_relative_to(root):
                ignored.append(path.name)
            else:
                self._paths[frame] = path
        self.ignored: tuple[str, ...] = tuple(ignored)

    def __getitem__(self, frame: int) -> bytes:
        return self._paths[frame].read_bytes()

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._paths))

    def __len__(self) -> int:
        return len(self._paths)

    def digest(self, memo: StatMemo) -> str:
        """sha256 over numbers and bytes, remembered for as long as every file's size, time and inode stay the same. Raises OSError."""
        stats = {frame: path.stat() for frame, path in sorted(self._paths.items())}
        listing = json.dumps([[frame, stat.st_size, stat.st_mtime_ns, stat.st_ino] for frame, stat in stats.items()])
        seen = hashlib.sha256(listing.encode()).hexdigest()
        folder = self.folder.stat() if self._paths else None
        remembered = memo.get(str(self.folder), folder) if folder else None
        if isinstance(remembered, list) and remembered[0] == seen:
            return str(remembered[1])
        total = hashlib.sha256()
        for frame in stats:
            picture = self[frame]
            total.update(f"{frame}:{len(picture)}:".encode() + picture)
        settled = time.time_ns() - max((stat.st_mtime_ns for stat in stats.values()), default=0) > SETTLE_NS
        if folder and settled:
            memo.put(str(self.folder), folder, [seen, total.hexdigest()])
        return total.hexdigest()
