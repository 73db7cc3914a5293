"""The labels of a data set: reading every label file in a folder, and matching trials with their videos."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from extractors.contract import Person
from pipeline.errors import Problem, RequestError, Severity
from pipeline.labels.affwild2 import parse_dense, parse_mtl
from pipeline.labels.cells import counted
from pipeline.labels.emi import parse_emi
from pipeline.labels.files import LabelFile, LabelFileError, Parsed
from pipeline.labels.folders import find_label_files
from pipeline.labels.records import TASKS, Format, LabelSet, TrialLabels
from pipeline.labels.table import parse_table

__all__ = ["TASKS", "LabelSet", "TrialLabels", "compare_rows", "match_source", "read_labels"]

_PARSERS: dict[Format, Callable[[LabelFile], Parsed]] = {
    "va": parse_dense,
    "expr": parse_dense,
    "au": parse_dense,
    "mtl": parse_mtl,
    "emi": parse_emi,
    "csv": parse_table,
}
_SUFFIXES: tuple[tuple[str, Person], ...] = (("_left", "left"), ("_right", "right"))


def read_labels(root: Path, tasks: Sequence[str] = ()) -> LabelSet:
    """All labels at or under `root`, or those of some tasks: formats of TASKS ("csv": every user's csv) or names of users' csv files.

    A file that cannot be read becomes a problem, and the others are read. No row is ever dropped but a repeated one. Of a trial that
    two files label for one task neither is taken, but its own VA, EXPR or AU file is preferred to rows of an MTL file.
    Raises RequestError when there is no such folder, when nothing in it is recognised, or when it has nothing for one of the tasks.
    """
    if not root.is_dir():
        why = "it is a file" if root.exists() else "there is no such folder"
        raise RequestError(Problem(what="the labels cannot be read", where=str(root), why=why, fix="name a folder of label files"))
    files, problems = find_label_files(root)
    _check_found(root, files, tasks, problems)
    labels: list[tuple[Format, TrialLabels]] = []
    for file in files:
        if tasks and not {file.format, file.task} & set(tasks):
            continue
        try:
            parsed = _PARSERS[file.format](file)
        except LabelFileError as error:
            problems.extend(error.problems)
            continue
        problems.extend(parsed.problems)
        labels.extend((file.format, one) for one in parsed.labels)
    kept, more = _one_per_trial(labels)
    alike, others = _one_layout(kept)
    alike.sort(key=lambda one: (one.task, one.trial))
    return LabelSet(labels=tuple(alike), problems=(*problems, *more, *others, *_split_conflicts(root, alike)))


def _check_found(root: Path, files: Sequence[LabelFile], tasks: Sequence[str], problems: Sequence[Problem]) -> None:
    found = sorted({name for file in files for name in (file.format, file.task)})
    if not files:
        why = "looked for text files with the header of Aff-Wild2 VA, EXPR, AU or MTL, an EMI csv, or any csv with a line of column names"
        missing = [Problem(what="no labels are recognised", where=str(root), why=why, fix="name the folder that holds the label files")]
        raise RequestError([*missing, *problems])
    missing = []
    for task in tasks:
        if task not in found:
            close = difflib.get_close_matches(task, found, 1)
            fix = f"did you mean {close[0]!r}?" if close else "leave the task out to read all that is there"
            missing.append(Problem(what=f"no labels for task {task!r}", where=str(root), why=f"found {', '.join(found)}", fix=fix))
    if missing:
        raise RequestError(missing)


def _one_per_trial(read: Sequence[tuple[Format, TrialLabels]]) -> tuple[list[TrialLabels], list[Problem]]:
    """At most one label record per task and trial."""
    places: dict[tuple[str, str], list[tuple[Format, TrialLabels]]] = {}
    for format_, labels in read:
        places.setdefault((labels.task, labels.trial), []).append((format_, labels))
    kept: list[TrialLabels] = []
    problems: list[Problem] = []
    outdone: Counter[tuple[Path, str]] = Counter()
    for rivals in places.values():
        own = [one for format_, one in rivals if format_ != "mtl"]
        if own and len(own) < len(rivals):
            outdone.update((one.path, one.task) for format_, one in rivals if format_ == "mtl")
        best = own or [one for _, one in rivals]
        if len(best) == 1:
            kept.append(best[0])
        else:
            problems.append(_twice(best))
    return kept, problems + [_outdone(path, task, n) for (path, task), n in outdone.items()]


def _twice(rivals: Sequence[TrialLabels]) -> Problem:
    first, *others = rivals
    why = f"also in {', '.join(str(one.path) for one in others)}; neither was taken"
    what = f"trial {first.trial} has two sets of {first.task} labels"
    return Problem(what=what, where=str(first.path), why=why, fix="keep one of them, or name the folder of one edition")


def _outdone(path: Path, task: str, n: int) -> Problem:
    what, why = f"{task} labels of {counted(n, 'trial')} left out", f"there are {task} files of their own"
    return Problem(what=what, where=str(path), why=why, fix="ask for the task mtl alone to use these", severity=Severity.WARNING)


def _layout(labels: TrialLabels) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    return labels.columns, labels.classes, labels.frame is None


def _one_layout(read: Sequence[TrialLabels]) -> tuple[list[TrialLabels], list[Problem]]:
    """A task's trials have the same columns and classes: those that differ from most of them are left out, each with a problem."""
    counts: dict[str, Counter[tuple[tuple[str, ...], tuple[str, ...], bool]]] = {}
    for labels in read:
        counts.setdefault(labels.task, Counter())[_layout(labels)] += 1
    usual = {task: count.most_common(1)[0][0] for task, count in counts.items()}
    problems = [_differs(one, *usual[one.task]) for one in read if _layout(one) != usual[one.task]]
    return [one for one in read if _layout(one) == usual[one.task]], problems


def _differs(labels: TrialLabels, columns: tuple[str, ...], classes: tuple[str, ...], is_clip: bool) -> Problem:
    found, usual = ",".join(labels.classes or labels.columns), ",".join(classes or columns)
    if (labels.frame is None) != is_clip:
        found, usual = ("a row per clip", "rows per frame") if labels.frame is None else ("rows per frame", "a row per clip")
    what = f"trial {labels.trial} has other {labels.task} labels than most"
    return Problem(what=what, where=str(labels.path), why=f"{found} instead of {usual}", fix="name the folder of one edition")


def _split_conflicts(root: Path, read: Sequence[TrialLabels]) -> list[Problem]:
    """One warning for the trials that are to be trained on for one task and tested on for another."""
    splits: dict[str, set[str]] = {}
    for labels in read:
        if labels.split:
            splits.setdefault(labels.trial, set()).add(labels.split)
    torn = sorted(trial for trial, names in splits.items() if len(names) > 1)
    if not torn:
        return []
    what = f"{counted(len(torn), 'trial')} in different splits for different tasks"
    why = ", ".join(torn[:5]) + (", ..." if len(torn) > 5 else "")
    return [Problem(what=what, where=str(root), why=why, fix="ask for one task, or move them", severity=Severity.WARNING)]


def match_source(trial: str, sources: Collection[str]) -> tuple[str, Person] | None:
    """The media file (by its name without the suffix) that shows a trial, and which person of it; None when there is none.

    The exact name is tried first. Only then `_left` or `_right` is taken off the end: both share the media file of the bare name.
    """
    if trial in sources:
        return trial, "main"
    for suffix, person in _SUFFIXES:
        if trial.endswith(suffix) and trial.removesuffix(suffix) in sources:
            return trial.removesuffix(suffix), person
    return None


def compare_rows(labels: TrialLabels, n_frames: int, tolerance_rows: int = 2) -> Problem | None:
    """What to report when a trial's labels do not fit a source of `n_frames` decoded frames; None when they do.

    Up to `tolerance_rows` it is a warning (the organisers' own extraction is often off by one), beyond it an error. Dense labels are
    to have a row per frame; for others only frames past the end count. Labels of a whole clip always fit.
    """
    if labels.frame is None:
        return None
    n_labels = int(labels.frame[-1]) + 1 if len(labels.frame) else 0
    off = n_labels - n_frames
    if off == 0 or (off < 0 and not labels.dense):
        return None
    if labels.dense:
        what = f"trial {labels.trial} has {counted(n_labels, 'row')} of {labels.task} labels for {counted(n_frames, 'frame')}"
    else:
        what = f"trial {labels.trial} has {labels.task} labels up to frame {n_labels - 1} for {counted(n_frames, 'frame')}"
    why = f"{abs(off)} too {'many' if off > 0 else 'few'}"
    if abs(off) <= tolerance_rows:
        fix = f"nothing need be done: up to {tolerance_rows} are accepted, and rows are aligned from the first"
        return Problem(what=what, where=str(labels.path), why=why, fix=fix, severity=Severity.WARNING)
    fix = "check that it is the right video, or raise store.tolerance_rows in the stages file"
    return Problem(what=what, where=str(labels.path), why=f"{why}, more than the {tolerance_rows} accepted", fix=fix)
