"""The challenges' forms for submissions: what a row is named, which columns it wants, and in which order.

Headers of ABAW 3 to 10, Aff-Wild2's and the emotional mimicry challenge's: docs/formats.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.arrays import Int64
from trainer.errors import Problem, TrainerError
from trainer.tasks import ACTION_UNITS, EMOTIONS, EXPRESSIONS, VALENCE_AROUSAL

NO_FRAME = -1
_FRAMES = ("imagelocation", "image")
_IMAGE = re.compile(r"(?:.*/)?([^/]+)/0*([1-9]\d{0,8})\.(?:jpe?g|png)", re.IGNORECASE | re.ASCII)
_UNIT = re.compile(r"au0*([1-9]\d?)", re.ASCII)
_CLIP = re.compile(r"(\d+)(?:\.0*)?", re.ASCII)
_MEDIA = re.compile(r"\.(mp4|avi|mkv|mov|webm|mp3|wav)\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """header: as it is written again. wants: the tasks in the order of its columns, each with the names of its columns in their order;
    empty where the header names none, and what is predicted decides. names: R texts that begin the rows. trials: V different ones;
    trial: (R,) the number of each row's; frame: (R,) source frames from 0, NO_FRAME where a row is a clip."""

    path: Path
    header: str
    wants: tuple[tuple[str, tuple[str, ...]], ...]
    names: tuple[str, ...]
    trials: tuple[str, ...]
    trial: Int64
    frame: Int64


def read_template(path: Path) -> Template:
    """A form whose rows begin with `NAME/00001.jpg`, or a clip's file name; what stands after the first comma is not looked at.

    Raises TrainerError for an unknown header, a row without a name, and a file that cannot be read.
    """
    lines = _read_lines(path)
    cells = [cell.strip() for cell in lines[0].rstrip(", \t").split(",")]
    wants = _wants(cells)
    if wants is None:
        why = f"found {lines[0][:60]!r}, expected image_location, image or Filename, and then the columns of a task"
        raise _bad(path, 1, "has an unknown header", why, "take the organisers' template, or the header of its challenge")
    by_clip = _normal(cells[0]) == "filename"
    names = tuple(line.partition(",")[0].strip() for line in lines[1:])
    if not names:
        raise _bad(path, 1, "has no rows", "a submission has the rows of its template", "take the organisers' template")
    number: dict[str, int] = {}
    trial, frame = np.empty(len(names), np.int64), np.full(len(names), NO_FRAME, np.int64)
    for i, name in enumerate(names):
        if by_clip:
            trial[i] = number.setdefault(_clip(name, path, i + 2), len(number))
        else:
            match = _IMAGE.fullmatch(name)
            if match is None:
                fix = "write NAME/00001.jpg; pictures count from 1"
                raise _bad(path, i + 2, "has a row without a picture's name", f"found {name[:60]!r}", fix)
            trial[i], frame[i] = number.setdefault(match[1], len(number)), int(match[2]) - 1
    return Template(path=path, header=",".join(cells), wants=wants, names=names, trials=tuple(number), trial=trial, frame=frame)


def _wants(cells: Sequence[str]) -> tuple[tuple[str, tuple[str, ...]], ...] | None:
    """None for an unknown header."""
    first, words = _normal(cells[0]), [_normal(cell) for cell in cells[1:]]
    if first == "filename":
        emotions = _named(words, EMOTIONS)
        return () if not words else (("emi", emotions),) if emotions else None
    if first not in _FRAMES:
        return None
    if not words:
        return ()
    if words[:3] == ["valence", "arousal", "expression"]:
        units = ACTION_UNITS if words[3:] == ["aus"] else _units(words[3:])
        return (("va", VALENCE_AROUSAL), ("expr", EXPRESSIONS), ("au", units)) if units else None
    if pair := _named(words, VALENCE_AROUSAL):
        return (("va", pair),)
    for classes in (EXPRESSIONS, EXPRESSIONS[:7]):
        if found := _named(words, classes):
            return (("expr", found),)
    units = _units(words)
    return (("au", units),) if units else None


def _named(words: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The names in the order of the words; empty where these are not all of them once."""
    known = {_normal(name): name for name in names}
    return tuple(known[word] for word in words) if sorted(words) == sorted(known) else ()


def _units(words: Sequence[str]) -> tuple[str, ...]:
    matches = [_UNIT.fullmatch(word) for word in words]
    found = tuple(f"AU{match[1]}" for match in matches if match)
    return found if len(set(found)) == len(words) else ()


def _clip(name: str, path: Path, line: int) -> str:
    """`123`, `123.0` and `00123.mp4` are clip 00123."""
    bare = _MEDIA.sub("", name)
    if not bare:
        raise _bad(path, line, "has a row without a file name", "its first cell is empty", "take the organisers' template")
    number = _CLIP.fullmatch(bare)
    return number[1].zfill(5) if number else bare


def _normal(word: str) -> str:
    return re.sub(r"[\s_]+", "", word).casefold()


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _bad(path, 0, "the template cannot be read", error.strerror or str(error), "name the organisers' template") from error
    except UnicodeDecodeError as error:
        raise _bad(path, 0, "the template is no text", str(error), "name the organisers' template, as UTF-8") from error
    lines = [line.rstrip("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip():
        del lines[-1]
    if not lines:
        raise _bad(path, 0, "the template is empty", "there is no line in it", "name the organisers' template")
    return lines


def _bad(path: Path, line: int, what: str, why: str, fix: str) -> TrainerError:
    return TrainerError(Problem(what=what, where=f"{path}:{line}" if line else str(path), why=why, fix=fix))
