"""Finding the label files in a folder and telling the format of each, without reading more than its first line."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import Problem
from pipeline.labels.affwild2 import tasks_of
from pipeline.labels.emi import is_emi_header
from pipeline.labels.files import LabelFile, header_cells, normal
from pipeline.labels.records import Format
from pipeline.labels.splits import split_and_rest, split_of
from pipeline.labels.table import is_table_header, names_trials

_SUFFIXES = (".txt", ".csv")
_NOT_LABELS = re.compile(r"\.|readme|licen[cs]e|changelog|thumbs\.db|desktop\.ini", re.IGNORECASE)
_HEAD_BYTES = 1 << 16
_CHALLENGES: dict[str, Format] = {
    "va": "va",
    "vaset": "va",
    "vaestimationchallenge": "va",
    "expr": "expr",
    "exprset": "expr",
    "exprclassificationchallenge": "expr",
    "exprrecognitionchallenge": "expr",
    "au": "au",
    "auset": "au",
    "audetectionchallenge": "au",
    "mtl": "mtl",
    "mtlchallenge": "mtl",
}


@dataclass(slots=True)
class _Walk:
    """One pass through a folder. base: its real path, which no link may leave. seen: the real folders and splits entered so far."""

    base: Path
    problems: list[Problem] = field(default_factory=list)
    seen: set[tuple[str, str]] = field(default_factory=set)

    def files(self, folder: Path, split: str) -> Iterator[tuple[Path, str]]:
        """Every file that may hold labels, in the order of names, with the split that the nearest folder names."""
        here = (os.path.realpath(folder), split)
        if here in self.seen:
            return
        self.seen.add(here)
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            self._problem(folder, "cannot be listed", error.strerror or str(error), "make the folder readable")
            return
        for name in names:
            path = folder / name
            if _NOT_LABELS.match(name) or not self._may_enter(path):
                continue
            if path.is_dir():
                yield from self.files(path, split_of(name) or split)
            elif path.is_file() and path.suffix.lower() in _SUFFIXES:
                yield path, split

    def _may_enter(self, path: Path) -> bool:
        """Not a link out of the base, which would read what nobody named, nor one that leads nowhere."""
        if path.is_symlink():
            real = os.path.realpath(path)
            relevant = path.suffix.lower() in _SUFFIXES or os.path.isdir(real)
            if not Path(real).is_relative_to(self.base):
                if relevant:
                    self._problem(
                        path, "is a link that leads out of the folder of labels", real, "copy the files into it, or name their own folder"
                    )
                return False
            if relevant and not os.path.exists(real):
                self._problem(path, "is a link that leads nowhere", real, "restore its target, or take it away")
                return False
        return self._has_text_name(path)

    def _has_text_name(self, path: Path) -> bool:
        try:
            path.name.encode()
        except UnicodeEncodeError:
            shown = path.parent / path.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
            self._problem(shown, "has a name that is not UTF-8", "a trial's name is text", "rename it")
            return False
        return True

    def _problem(self, path: Path, what: str, why: str, fix: str) -> None:
        self.problems.append(Problem(what=what, where=str(path), why=why, fix=fix))


def find_label_files(root: Path) -> tuple[list[LabelFile], list[Problem]]:
    """Every label file at or under `root`, each with its format, task and split; and links and folders that were not followed.

    A header tells the format. A file without a known header is taken for a broken label file where its folder is named after a
    challenge or has others like it that hold one trial's labels each; elsewhere a text file is ignored, and a csv is a broken one.
    """
    walk = _Walk(base=Path(os.path.realpath(root)))
    found = _without_aliases(list(walk.files(root, split_of(walk.base.name))))
    heads = {path: _header(path) for path, _ in found}
    formats = {path: _format(path, heads[path], split) for path, split in found}
    siblings: dict[tuple[Path, str], Counter[Format]] = {}
    for path, known in formats.items():
        if known in ("va", "expr", "au"):
            siblings.setdefault((path.parent, path.suffix.lower()), Counter())[known] += 1
    files = []
    for path, split in found:
        if format_ := formats[path] or _guess(path, root, siblings.get((path.parent, path.suffix.lower())), heads[path]):
            files.append(_label_file(path, root, split, format_, heads[path]))
    return files, walk.problems


def _without_aliases(found: Sequence[tuple[Path, str]]) -> list[tuple[Path, str]]:
    """Links inside the folder may show a file twice: it is taken once per split, and once where only one place tells the split."""
    places: dict[str, dict[str, Path]] = {}
    for path, split in found:
        places.setdefault(os.path.realpath(path), {}).setdefault(split, path)
    return [(path, split) for by_split in places.values() for split, path in by_split.items() if split or len(by_split) == 1]


def _header(path: Path) -> tuple[str, ...]:
    """The cells of the first line; none where it cannot be read or is no text (the parser says why, if it comes to that)."""
    try:
        with path.open("rb") as stream:
            line = stream.readline(_HEAD_BYTES)
        return header_cells(line.decode("utf-8-sig").split("\r")[0].rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        return ()


def _format(path: Path, header: tuple[str, ...], split: str) -> Format | None:
    if recognised := tasks_of(header):
        return recognised[0]
    if path.suffix.lower() != ".csv":
        return None
    if is_emi_header(header, split_and_rest(path.stem)[0] or split):
        return "emi"
    return "csv" if is_table_header(header) else None


def _guess(path: Path, root: Path, siblings: Counter[Format] | None, header: tuple[str, ...]) -> Format | None:
    """What a file without a known header should have been, so that its parser can say what is wrong; None for what is no label file."""
    if header and normal(header[0]) == "imagelocation":  # the organisers' form for predictions
        return None
    base = Path(os.path.realpath(root))
    parts = [*base.parts[-2:], *path.parent.relative_to(root).parts]
    named = next((_CHALLENGES[normal(part)] for part in reversed(parts) if normal(part) in _CHALLENGES), None)
    guess = siblings.most_common(1)[0][0] if siblings else named
    if guess == "mtl" and not split_and_rest(path.stem)[0]:
        return None
    return guess or ("csv" if path.suffix.lower() == ".csv" else None)


def _label_file(path: Path, root: Path, split: str, format_: Format, header: tuple[str, ...]) -> LabelFile:
    """A file of many trials may tell its split in its name; that of a user's csv is also its task, else the nearest folder is."""
    stem_split, rest = split_and_rest(path.stem)
    many = format_ in ("mtl", "emi") or (format_ == "csv" and names_trials(header))
    folder = next((part for part in reversed(path.parent.relative_to(root).parts) if not split_of(part)), "csv")
    task = (rest if many and rest else folder) if format_ == "csv" else format_
    return LabelFile(path=path, format=format_, task=task, split=(stem_split or split) if many else split)
