"""Which trials must stay together: those of one source and those of one subject."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.errors import Problem, TrainerError

_PERSON = re.compile(r"(_left|_right)\Z")
_PART = re.compile(r"(\d+-\d+-\d+x\d+|video\d+)([-_]\d+)\Z", re.ASCII)
_COLUMNS = ("trial", "subject")


def subject_of(trial: str) -> str:
    """What Aff-Wild2's names tell of a subject, a rule on the safe side: people of one video and parts of one recording go together.

    `video5_left` -> `video5`; `10-60-1280x720-2` -> `10-60-1280x720`; `video45_3` -> `video45`; any other name is itself: `106` and
    `106-30-720x1280` are two.
    """
    name = _PERSON.sub("", trial)
    part = _PART.match(name)
    return part[1] if part else name


def group_trials(
    trials: Sequence[str], sources: Sequence[str], subjects: Mapping[str, str] | None = None, *, by_name: bool = True
) -> tuple[tuple[str, ...], ...]:
    """Groups of trials that must not be parted, each in order of names, and in order of their first names.

    sources: of each trial its source's digest: a copy of a video under another name is the same source. subjects: of a trial its
    subject; those that it does not name have, by_name, the subject that `subject_of` tells, else are their own. What is together by
    either is together, and what is together with the same trial.
    """
    subjects = subjects or {}
    rest = {trial: subject_of(trial) if by_name else trial for trial in trials if trial not in subjects}
    known = [("by rule", rest[trial]) if trial in rest else ("named", subjects[trial]) for trial in trials]
    leader = {trial: trial for trial in trials}

    def find(trial: str) -> str:
        while leader[trial] != trial:
            leader[trial] = leader[leader[trial]]
            trial = leader[trial]
        return trial

    first: dict[tuple[str, str], str] = {}
    for trial, source, subject in zip(trials, sources, known, strict=True):
        for tie in (subject, ("source", source)):
            leader[find(trial)] = find(first.setdefault(tie, trial))
    groups: dict[str, list[str]] = {}
    for trial in sorted(trials):
        groups.setdefault(find(trial), []).append(trial)
    return tuple(sorted(tuple(group) for group in groups.values()))


def read_subjects(path: Path) -> dict[str, str]:
    """A csv with the columns `trial` and `subject`, others passed over. Raises TrainerError."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise _bad(str(path), "cannot be read", why) from error
    header = [cell.strip().casefold() for cell in rows[0]] if rows else []
    if any(header.count(name) != 1 for name in _COLUMNS):
        raise _bad(f"{path}:1", "has an unknown header", f"expected the columns trial and subject, found {','.join(header)[:60]!r}")
    at = [header.index(name) for name in _COLUMNS]
    subjects: dict[str, str] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(header) or not all(row[i].strip() for i in at):
            raise _bad(f"{path}:{line}", "has a row without a trial or a subject", f"found {','.join(row)[:60]!r}")
        trial, subject = (row[i].strip() for i in at)
        if subjects.setdefault(trial, subject) != subject:
            raise _bad(f"{path}:{line}", f"trial {trial} has two subjects", f"{subjects[trial]!r} and {subject!r}")
    return subjects


def _bad(where: str, what: str, why: str) -> TrainerError:
    return TrainerError(Problem(what=what, where=where, why=why, fix="write a line `trial,subject`, and below it one for each trial"))
