"""Trials: which labelled subject is in which source. A source without labels is a trial of its own name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extractors.contract import Person
from pipeline.annotations import LabelSet, TrialLabels, match_source
from pipeline.errors import Problem, Severity
from pipeline.sources import Found, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One labelled subject in one source; `labels` holds one record per task."""

    name: str
    source: Source
    person: Person = "main"
    labels: tuple[TrialLabels, ...] = ()

    @property
    def split(self) -> str:
        return next((labels.split for labels in self.labels if labels.split), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One line of failures.csv. `stage` is where it came up: a stage's name, "source", "labels" or "store"."""

    trial: str
    stage: str
    problem: Problem


def make_trials(found: Found, labels: LabelSet | None) -> tuple[tuple[Trial, ...], tuple[Failure, ...]]:
    """All trials by name, and a failure for every bad source, label file, label without video and video without label."""
    sources = {source.name: source for source in found.sources}
    failures = [Failure(trial=_stem(problem.where), stage="source", problem=problem) for problem in found.problems]
    if labels is None:
        return tuple(Trial(name=name, source=source) for name, source in sources.items()), tuple(failures)
    bad = {failure.trial for failure in failures}
    failures += [Failure(trial=_stem(problem.where), stage="labels", problem=problem) for problem in labels.problems]
    by_trial: dict[str, list[TrialLabels]] = {}
    for record in labels.labels:
        by_trial.setdefault(record.trial, []).append(record)
    trials = []
    for name, records in by_trial.items():
        match = match_source(name, sources)
        if match is not None:
            trials.append(Trial(name=name, source=sources[match[0]], person=match[1], labels=tuple(records)))
        elif match_source(name, bad) is None:
            failures.append(Failure(trial=name, stage="labels", problem=_no_video(name, records)))
    labelled = {trial.source.name for trial in trials}
    for name in sorted(sources.keys() - labelled):
        trials.append(Trial(name=name, source=sources[name]))
        if not any(failure.trial == name for failure in failures):
            failures.append(Failure(trial=name, stage="labels", problem=_no_labels(sources[name])))
    return tuple(sorted(trials, key=lambda trial: trial.name)), tuple(failures)


def _no_video(name: str, records: Sequence[TrialLabels]) -> Problem:
    fix = "add the video, or remove the label file"
    return Problem(what=f"there is no video for the labels of {name!r}", where=str(records[0].path), why="no video has that name", fix=fix)


def _no_labels(source: Source) -> Problem:
    fix = "nothing to do if it is a test video; else add its label file"
    why = "no label file has its name; all of its rows are stored, without labels"
    return Problem(what="has no labels", where=str(source.path), why=why, fix=fix, severity=Severity.WARNING)


def _stem(where: str) -> str:
    """The trial that a place names: its file's stem. A place may end in :line."""
    name = Path(where).name
    head, _, line = name.rpartition(":")
    return Path(head if head and line.isdigit() else name).stem
