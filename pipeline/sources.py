"""The folder of videos: which files are sources, what their bytes' digests are, and what is wrong with the others."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.weights import FOLDER_FILES
from pipeline.errors import Problem, RequestError, Severity
from pipeline.memo import FileState, StatMemo, state_of

VIDEO = ".mp4 .m4v .mov .qt .avi .mkv .webm .mpg .mpeg .vob .mts .m2ts .ts .flv .f4v .wmv .asf .ogv .3gp .3g2 .mxf .dv .rm .rmvb"
PLAYLIST = ".m3u8 .m3u .ffconcat .concat .pls .mpd .xspf .asx .sdp .ism"
SUFFIXES, PLAYLISTS = frozenset(VIDEO.split(" ")), frozenset(PLAYLIST.split(" "))
READ_BYTES = 1 << 22
LIKE_A_SEAL = re.compile(r"sha256:[0-9a-f]{64}")  # see hdf5.is_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One media file. name: its stem, unique in the folder; digest: sha256 of its bytes, when it was in this state (`memo.state_of`)."""

    name: str
    path: Path
    digest: str
    state: FileState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    sources: tuple[Source, ...]
    problems: tuple[Problem, ...]  # one per file that is no source although it looks like one; `where` is the file's path


def find_sources(folder: Path, memo: StatMemo, *, follow_links: bool = False, told: Callable[[int, int], None] | None = None) -> Found:
    """Every media file below the folder, hidden ones aside. Raises RequestError where there is no such folder or nothing in it.

    Of files with the same stem none is taken. told(done, of_all) is called as files are read for their digests.
    """
    require_videos(folder)
    problems: list[Problem] = []
    paths = sorted(_candidates(folder, follow_links, problems))
    if not paths:
        why = f"no file in it ends in {' '.join(sorted(SUFFIXES)[:6])} or the like"
        fix = "give the folder that holds the video files"
        raise RequestError([Problem(what="no videos", where=str(folder), why=why, fix=fix), *problems])
    usable = _usable(folder, paths, follow_links, problems)
    sources: list[Source] = []
    for number, path in enumerate(usable):
        if told is not None:
            told(number, len(usable))
        try:
            state = state_of(path)
            sources.append(Source(name=path.stem, path=path, digest=digest_of(path, memo), state=state))
        except OSError as error:
            why = error.strerror or str(error)
            problems.append(Problem(what="cannot be read", where=str(path), why=why, fix="mend its permissions, or fetch it again"))
    return Found(sources=tuple(sorted(sources, key=lambda source: source.name)), problems=tuple(problems))


def require_videos(folder: Path) -> None:
    """Raises RequestError where there is no such folder."""
    if not folder.is_dir():
        why = "there is no such folder" if not folder.exists() else "it is not a folder"
        raise RequestError(Problem(what="no videos", where=str(folder), why=why, fix="give the folder that holds the video files"))


def _candidates(folder: Path, follow_links: bool, problems: list[Problem]) -> Iterator[Path]:
    def unlisted(error: OSError) -> None:
        where = _shown(Path(error.filename))
        problems.append(Problem(what="cannot be listed", where=where, why=error.strerror or str(error), fix="mend its permissions"))

    top = Path(os.path.realpath(folder))
    walked = {top}  # a followed link may lead back up
    for root, folders, files in os.walk(folder, followlinks=follow_links, onerror=unlisted):
        kept = []
        for path in (Path(root, name) for name in sorted(folders) if not name.startswith(".")):
            real = Path(os.path.realpath(path))
            if path.is_symlink() and not follow_links and not real.is_relative_to(top):
                problems.append(_leads_out(path, real, Severity.WARNING))
            if real not in walked and (follow_links or not path.is_symlink()):
                walked.add(real)
                kept.append(path.name)
        folders[:] = kept
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if not name.startswith(".") and (suffix in SUFFIXES or suffix in PLAYLISTS):
                yield Path(root, name)


def _usable(folder: Path, paths: Sequence[Path], follow_links: bool, problems: list[Problem]) -> list[Path]:
    """The paths that are regular files of the folder, each the only one of its stem."""
    top = Path(os.path.realpath(folder))
    by_name: dict[str, list[Path]] = {}
    for path in paths:
        if problem := _refusal(path, top, follow_links):
            problems.append(problem)
        else:
            by_name.setdefault(path.stem, []).append(path)
    for name, (first, *others) in by_name.items():
        for path in others:
            why = f"{first.relative_to(folder)} has that name too, so its labels and rows could be either's"
            problems.append(Problem(what=f"the name {name!r} is taken", where=str(path), why=why, fix="rename one of them"))
    return [first for first, *others in by_name.values() if not others]


def _refusal(path: Path, top: Path, follow_links: bool) -> Problem | None:
    if path.suffix.lower() in PLAYLISTS:
        why = "a playlist names other files, which may lie anywhere"
        return Problem(what="a playlist is not read", where=_shown(path), why=why, fix="make one video file of it with ffmpeg")
    if _shown(path) != str(path):
        return Problem(what="has an unusable name", where=_shown(path), why="it is not UTF-8", fix="rename it")
    if LIKE_A_SEAL.search(str(path)):
        why = "the artifacts that name it would seem to have two checksums"
        return Problem(what="has an unusable name", where=str(path), why=why, fix="take 'sha256:' out of it")
    if path.is_symlink() and not follow_links:  # the folders on the way to it are none: links to folders were not walked
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(top):
            return _leads_out(path, real, Severity.ERROR)
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


def _leads_out(path: Path, real: Path, severity: Severity) -> Problem:
    why, fix = f"it is a link to {_shown(real)}", "copy what it leads to there, or allow it with --follow-links"
    return Problem(what="leads out of the folder", where=_shown(path), why=why, fix=fix, severity=severity)


def _shown(path: Path) -> str:
    """The path as text that can be written anywhere: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def digest_of(path: Path, memo: StatMemo, files: Sequence[str] = FOLDER_FILES) -> str:
    """sha256 of the file's bytes, remembered by path, size, time and inode; of a saved model's folder that of the names and digests
    of its `files`. Raises OSError."""
    if path.is_dir():
        read = [path / file for file in files if (path / file).is_file()]
        return hashlib.sha256("".join(f"{file.name} {digest_of(file, memo)}\n" for file in read).encode()).hexdigest()
    name, before = os.path.abspath(path), path.stat()
    remembered = memo.get(name, before)
    if isinstance(remembered, str):
        return remembered
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    memo.put(name, before, digest.hexdigest())
    return digest.hexdigest()
