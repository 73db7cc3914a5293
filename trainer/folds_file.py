"""Folds written to a file and read from one. See docs/formats.md."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.store import Index, publish_text
from trainer.errors import Problem, TrainerError, named
from trainer.groups import group_trials
from trainer.splits import Fold, Folds, Scheme, check_groups

FORMAT, FORMAT_VERSION = "affectpipe/folds", 1
_MAX_BYTES = 64 << 20
_FIX = "write it anew with `affectpipe train`, or see docs/formats.md"


def write_folds(path: Path, folds: Folds) -> None:
    """One name a line, so that two files can be compared."""
    said = {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(folds)}
    publish_text(path, json.dumps(said, indent=1, ensure_ascii=False) + "\n")


def read_folds(path: Path, index: Index | None = None, *, subjects: Mapping[str, str] | None = None) -> Folds:
    """Raises TrainerError where it is no such file, does not fit the store's trials, or parts trials of one source or named subject.

    index: of the store that it is for; without one the latter two are not looked at.
    """
    folds = _parsed(_read_json(path), path)
    if index is None:
        return folds
    mentioned = {trial for fold in folds.folds for trial in (*fold.train, *fold.validation)} | set(folds.left_out)
    problems = []
    if unknown := mentioned - set(index.trials):
        why = f"the store does not have {len(unknown)} of its {len(mentioned)} trials"
        problems.append(_problem(path, f"does not fit the store: {named(unknown)}", why, "take them out, or use the store it was made for"))
    if unmentioned := set(index.trials) - mentioned:
        why = f"{len(unmentioned)} of the store's {len(index.trials)} trials are not in it"
        fix = "add them to a fold or to left_out"
        problems.append(_problem(path, f"does not fit the store: {named(unmentioned)}", why, fix))
    if problems:
        raise TrainerError(problems)
    with _named_file(path):
        check_groups(folds.folds, group_trials(index.trials, index.source, subjects, by_name=False))
    return folds


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise TrainerError(_problem(path, "cannot be read", f"it is larger than {_MAX_BYTES >> 20} MiB", _FIX))
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrainerError(_problem(path, "cannot be read", error.strerror or str(error), "name a file of folds")) from error
    except (ValueError, RecursionError) as error:
        raise TrainerError(_problem(path, "is not JSON", str(error), _FIX)) from error


def _parsed(said: Any, path: Path) -> Folds:
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("format_version") != FORMAT_VERSION:
        raise TrainerError(_problem(path, "is no file of folds", f"expected format {FORMAT!r}, version {FORMAT_VERSION}", _FIX))
    try:
        with _named_file(path):
            folds = tuple(Fold(train=_names(fold["train"]), validation=_names(fold["validation"])) for fold in said["folds"])
            return Folds(scheme=Scheme(**said.get("scheme", {})), folds=folds, left_out=_names(said.get("left_out", [])))
    except (KeyError, TypeError) as error:
        raise TrainerError(_problem(path, "is no whole file of folds", f"{type(error).__name__}: {error}", _FIX)) from error


@contextlib.contextmanager
def _named_file(path: Path) -> Iterator[None]:
    """What is wrong with folds is wrong with the file that they are from."""
    try:
        yield
    except TrainerError as error:
        raise TrainerError([_problem(path, problem.what, problem.why, problem.fix) for problem in error.problems]) from error


def _names(said: Any) -> tuple[str, ...]:
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise TypeError(f"expected a list of names, got {str(said)[:60]}")
    return tuple(said)


def _problem(path: Path, what: str, why: str, fix: str) -> Problem:
    return Problem(what=what, where=str(path), why=why, fix=fix)
