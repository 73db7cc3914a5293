"""YAML with places: plain data, the line of every key, and every duplicate, alias and odd value reported."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import Problem, RequestError

MAX_BYTES = 1 << 20
MAX_BITS = 4096
Place = tuple[str, ...]
_FLOAT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")  # 3e-5: a number in YAML 1.2 and to everyone, a text in PyYAML's 1.1


@dataclass(slots=True)
class Document:
    """One YAML file as plain data (dict, list, str, bool, int, float, None), with the line of every key and all problems so far.

    A value that cannot be read is reported, None in the data, and its place is in `unread`: no more is reported of it.
    elsewhere: where a value comes from that is not the file's.
    """

    path: Path
    data: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Place] = field(default_factory=set)
    elsewhere: dict[Place, str] = field(default_factory=dict)

    def line(self, place: Place) -> int:
        """The line of the key at this place, or of the nearest key above it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def at(self, place: Place, key: str) -> Place:
        """The place of the key where it is written, else the place that lacks it."""
        return (*place, key) if (*place, key) in self.lines else place

    def report_unread(self, place: Place, what: str, fix: str, why: str = "") -> None:
        self.report(place, what, fix, why)
        self.unread.add(place)

    def report(self, place: Place, what: str, fix: str = "", why: str = "") -> None:
        if any(place[:length] in self.unread for length in range(1, len(place) + 1)):
            return
        dotted = ".".join(place)
        what = f"{dotted}: {what}" if dotted else what
        self.problems.append(Problem(what=what, where=self._where(place), why=why, fix=fix))

    def _where(self, place: Place) -> str:
        said = (self.elsewhere[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.elsewhere)
        return next(said, f"{self.path.name}:{self.line(place)}")

    def report_unknown(self, place: Place, word: str, known: list[str], noun: str = "key") -> None:
        """An unknown word, with the nearest valid one."""
        near = get_close_matches(word, known, n=1, cutoff=0.6)
        fix = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        self.report(place, f"unknown {noun}" if noun == "key" else f"unknown {noun} {word!r}", fix)

    def put(self, place: Place, text: str, where: str) -> None:
        """A value that overrides what the file has at this place, or has not. text: as YAML; where: who says so."""
        self.elsewhere[place] = where
        node = self.data
        for n, key in enumerate(place[:-1], start=1):
            if node.get(key) is None:
                node[key] = {}
                self.elsewhere.setdefault(place[:n], where)
            node = node[key]
            if not isinstance(node, dict):
                self.report(place, f"{'.'.join(place[:n])} is no mapping", "name a key that the file could have")
                return
        try:
            value = yaml.compose(text, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError) as error:
            self.report(place, f"{text!r} is not YAML", "quote it", why=str(getattr(error, "problem", "") or error))
            return
        self.unread.discard(place)
        node[place[-1]] = _plain(value, place, self, set()) if value is not None else None

    def raise_problems(self) -> None:
        """Raises RequestError with all of them, in the order of their lines, where there are any."""
        if self.problems:
            raise RequestError(sorted(self.problems, key=_line_number))


def _line_number(problem: Problem) -> int:
    """What was not said in the file stands first."""
    line = problem.where.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def load(path: Path, *, noun: str = "stages file", option: str = "--stages") -> Document:
    """Read a YAML file. Raises RequestError where it cannot be read or is not YAML; other problems are collected in the document.

    noun, option: what the file is, and which option names it.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RequestError(Problem(what=f"too large for a {noun}", where=str(path), why="over 1 MiB", fix="give the right file"))
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        why = error.strerror or str(error)
        raise RequestError(Problem(what="cannot be read", where=str(path), why=why, fix=f"give a {noun} with {option}")) from error
    except UnicodeDecodeError as error:
        raise RequestError(Problem(what="is not text", where=str(path), why=str(error), fix="save it as UTF-8")) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path.name}:{mark.line + 1}" if mark else path.name
        why = getattr(error, "problem", None) or str(error)
        raise RequestError(Problem(what="is not YAML", where=where, why=why, fix="mend the syntax there")) from error
    except RecursionError as error:
        raise RequestError(Problem(what="is nested too deeply", where=path.name, why="", fix="give the right file")) from error
    document = Document(path=path)
    if root is not None:
        document.data = _plain(root, (), document, set())
    return document


def _plain(node: yaml.Node, place: Place, document: Document, seen: set[int]) -> Any:
    if id(node) in seen:
        document.report_unread(place, "aliases are not supported", "write the value out")
        return None
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, place, document, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, (*place, str(i)), document, seen) for i, item in enumerate(node.value)]
    return _scalar(node, place, document)


def _mapping(node: yaml.MappingNode, place: Place, document: Document, seen: set[int]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        here = (*place, key)
        if not isinstance(key_node, yaml.ScalarNode) or not _is_writable(key):
            document.report(place, "a key must be a plain word", "write it as text")
            continue
        if key in data:
            first = document.lines[here]
            document.lines[here] = line
            document.report(here, f"given twice, first on line {first}", "keep one")
            document.lines[here] = first
            continue
        document.lines[here] = line
        data[key] = _plain(value_node, here, document, seen)
    return data


def _scalar(node: yaml.Node, place: Place, document: Document) -> Any:
    try:
        value = yaml.SafeLoader("").construct_object(node, deep=True)
    # all but the first: PyYAML on `!!int x`, `!!bool maybe`, `!!timestamp no` and a sexagesimal of 200 places
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, OverflowError) as error:
        document.report_unread(
            place, "not a plain value", "write text, a number, true, false or null", why=str(getattr(error, "problem", error))
        )
        return None
    if isinstance(value, str) and isinstance(node, yaml.ScalarNode) and node.style is None and _FLOAT.fullmatch(value):
        value = float(value)
    if isinstance(value, str) and not _is_writable(value):
        document.report_unread(place, "holds a character that no file or terminal takes", "write plain text")
        return None
    if isinstance(value, int) and value.bit_length() > MAX_BITS:  # Python cannot even print one of thousands of digits
        document.report_unread(place, "too large a number", f"write one of at most {MAX_BITS} bits")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        document.report_unread(place, "not a finite number", "write a finite one")
        return None
    if not isinstance(value, str | bool | int | float | None):
        return str(node.value)  # dates and the like stay the text that was written
    return value


def _is_writable(text: str) -> bool:
    """YAML can spell what nothing else takes: a NUL, and half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)
