"""failures.csv: one line per trial that was not done, or about which the user should know something."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pipeline.cache import Cache, State
from pipeline.errors import Problem, Severity
from pipeline.executor import Ran
from pipeline.plan import Plan
from pipeline.publish import publish_text
from pipeline.trials import Failure

FILE = "failures.csv"
COLUMNS = ("trial", "stage", "severity", "what", "where", "why", "fix", "also")


def collect(plan: Plan, cache: Cache, ran: Ran, others: Sequence[Failure]) -> tuple[Failure, ...]:
    """Of every trial the stages that failed, in this run or recorded before, and the warnings of what is done."""
    found = list(others)
    for index, trial in enumerate(plan.trials):
        for stage in plan.config.stages:
            key = plan.keys[stage.name][index]
            if problem := _problem(plan, cache, ran, stage.name, key):
                found.append(Failure(trial=trial.name, stage=stage.name, problem=problem))
            elif cache.state(stage.name, key) is State.DONE:
                for text in cache.known(stage.name, key)["warnings"]:
                    found.append(Failure(trial=trial.name, stage=stage.name, problem=_warning(text, trial.source.path)))
    return tuple(found)


def _problem(plan: Plan, cache: Cache, ran: Ran, stage: str, key: str) -> Problem | None:
    if (stage, key) in ran.failures:
        return ran.failures[stage, key].problem
    if plan.states[stage][key] is State.FAILED and cache.failure_path(stage, key).exists():
        return cache.failure(stage, key)
    return None


def _warning(text: str, where: Path) -> Problem:
    what, _, why = text.partition(": ")
    return Problem(what=what, where=where.name, why=why, fix="nothing to do if it is meant so", severity=Severity.WARNING)


def has_errors(failures: Sequence[Failure]) -> bool:
    return any(failure.problem.severity is Severity.ERROR for failure in failures)


def as_rows(failures: Sequence[Failure]) -> list[dict[str, str]]:
    """One row per trial: its gravest failure, earliest first, and in `also` the others in brief."""
    by_trial: dict[str, list[Failure]] = {}
    for failure in failures:
        by_trial.setdefault(failure.trial, []).append(failure)
    return [_row(sorted(by_trial[trial], key=lambda failure: failure.problem.severity is not Severity.ERROR)) for trial in sorted(by_trial)]


def _row(group: Sequence[Failure]) -> dict[str, str]:
    first, problem = group[0], group[0].problem
    also = "; ".join(dict.fromkeys(f"{other.stage}: {other.problem.what}" for other in group[1:]))
    values = (first.trial, first.stage, problem.severity.value, problem.what, problem.where, problem.why, problem.fix, also)
    return dict(zip(COLUMNS, values, strict=True))


def write(folder: Path, failures: Sequence[Failure]) -> Path:
    """Bring failures.csv up to date; it is of its header alone where all went well."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(as_rows(failures))
    path = folder / FILE
    if not path.is_file() or path.read_bytes() != text.getvalue().encode():  # like every file of a store, written only where it changes
        publish_text(path, text.getvalue())
    return path
