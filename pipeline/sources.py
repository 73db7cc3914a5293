"""The folder of videos: which files are sources, what their bytes' digests are, and what is wrong with the others."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import Problem, RequestError
from pipeline.memo import StatMemo

VIDEO = ".mp4 .m4v .mov .qt .avi .mkv .webm .mpg .mpeg .vob .mts .m2ts .ts .flv .f4v .wmv .asf .ogv .3gp .3g2 .mxf .dv .rm .rmvb"
PLAYLIST = ".m3u8 .m3u .ffconcat .concat .pls .mpd .xspf .asx .sdp .ism"
SUFFIXES, PLAYLISTS = frozenset(VIDEO.split(" ")), frozenset(PLAYLIST.split(" "))
READ_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One media file. name: its stem, unique in the folder; digest: sha256 of its bytes."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]  # one per file that is no source although it looks like one; `where` is the file's path


def find_sources(folder: Path, memo: StatMemo, *, follow_links: bool = False, told: Callable[[int, int], None] | None = None) -> Found:
    """Every media file below the folder, hidden ones aside. Raises RequestError where there is no such folder or nothing in it.

    told(done, of_all) is called as files are read for their digests.
    """
    if not folder.is_dir():
        why = "there is no such folder" if not folder.exists() else "it is not a folder"
        raise RequestError(Problem(what="no videos", where=str(folder), why=why, fix="give the folder that holds the video files"))
    paths = sorted(_candidates(folder, follow_links))
    problems: list[Problem] = []
    sources: dict[str, Source] = {}
    taken: dict[str, Path] = {}
    for number, path in enumerate(paths):
        if told is not None:
            told(number, len(paths))
        problem = _refusal(path, folder.resolve(), follow_links)
        if problem is None and path.stem in taken:
            why = f"{taken[path.stem].relative_to(folder)} has that name too, so its labels and rows could be either's"
            problem = Problem(what=f"the name {path.stem!r} is taken", where=str(path), why=why, fix="rename one of them")
            sources.pop(path.stem, None)
        taken.setdefault(path.stem, path)
        if problem is None:
            try:
                sources[path.stem] = Source(name=path.stem, path=path, digest=digest_of(path, memo))
            except OSError as error:
                why = error.strerror or str(error)
                problem = Problem(what="cannot be read", where=str(path), why=why, fix="mend its permissions, or fetch it again")
        if problem is not None:
            problems.append(problem)
    if not paths:
        why = f"no file in it ends in {' '.join(sorted(SUFFIXES)[:6])} or the like"
        raise RequestError(Problem(what="no videos", where=str(folder), why=why, fix="give the folder that holds the video files"))
    return Found(sources=tuple(sources[name] for name in sorted(sources)), problems=tuple(problems))


def _candidates(folder: Path, follow_links: bool) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, followlinks=follow_links):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (suffix in SUFFIXES or suffix in PLAYLISTS):
                yield Path(root, name)


def _refusal(path: Path, folder: Path, follow_links: bool) -> Problem | None:
    if path.suffix.lower() in PLAYLISTS:
        why = "a playlist names other files, which may lie anywhere"
        return Problem(what="a playlist is not read", where=str(path), why=why, fix="make one video file of it with ffmpeg")
    if not follow_links and not path.resolve().is_relative_to(folder):
        why = f"it is a link to {path.resolve()}"
        return Problem(what="leads out of the folder", where=str(path), why=why, fix="copy the file there, or allow it with --follow-links")
    try:
        mode, size = path.stat().st_mode, path.stat().st_size
    except OSError as error:
        why = error.strerror or str(error)
        return Problem(what="cannot be read", where=str(path), why=why, fix="mend the link or its permissions, or remove it")
    if not stat.S_ISREG(mode):
        return Problem(what="is not a file", where=str(path), why="it is a pipe, socket or device", fix="remove it from the folder")
    if size == 0:
        return Problem(what="is empty", where=str(path), why="it has no bytes", fix="fetch it again, or remove it")
    return None


def digest_of(path: Path, memo: StatMemo) -> str:
    """sha256 of the file's bytes, remembered by path, size, time and inode. Raises OSError."""
    name = str(path.resolve())
    before = path.stat()
    remembered = memo.get(name, before)
    if isinstance(remembered, str):
        return remembered
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    memo.put(name, before, digest.hexdigest())
    return digest.hexdigest()
