"""A run's record: `cache/runs/TIME.jsonl`, a line per event as it happens. It tells workers that they see the cache, and whoever looks how
the run goes."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.errors import FullError, Problem
from pipeline.fates import Fate
from pipeline.packs import Pack, PackReport, stop_path
from pipeline.plan import Plan
from pipeline.tally import Event, Tally
from pipeline.worker import Job, Report

FOLDER = "runs"


class Record:
    """The record of a run that goes on; `execute` tells it what happens. told: called with each event.

    Leaving the `with` block writes the end. Where it is left by an error, workers are told to begin no more jobs.
    """

    def __init__(self, cache: Path, plan: Plan, *, on: str, told: Callable[[Event], None]) -> None:
        self._plan, self._on, self._told = plan, on, told
        time_utc = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
        self.path = cache / FOLDER / f"{time_utc}-{socket.gethostname()}-{os.getpid()}.jsonl"

    def __enter__(self) -> Record:
        """Raises FullError where it cannot be written."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("x", encoding="utf-8")
        except OSError as error:
            raise _cannot_be_written(self.path, error) from error
        to_do = {stage.name: len(tasks) for stage in self._plan.config.stages if (tasks := self._plan.tasks_of(stage.name))}
        trials = len(self._plan.trials)
        self._write(event="start", on=self._on, host=socket.gethostname(), pid=os.getpid(), trials=trials, to_do=to_do)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._write(event="end", how="done", why="")
                return
            try:
                stop_path(self.path).touch()
                self._write(event="end", how="stopped", why=str(error) or kind.__name__)
            except (OSError, FullError):
                return  # the disk is full, perhaps: the error that is on its way tells more

    def workers(self, dashboard: str) -> None:
        """They are there, or on their way."""
        self._write(event="workers", dashboard=dashboard)

    def finished(self, pack: Pack, report: PackReport, left_s: float | None) -> None:
        """What was not begun is no event."""
        for job, one, began_utc in zip(pack.jobs, report.reports, report.began_utc, strict=True):
            if all(outcome.fate is Fate.LEFT for outcome in one.outcomes):
                continue
            self._write(event="job", pack=pack.number, where=report.where, began_utc=began_utc, left_s=left_s, **_story(job, one))

    def died(self, pack: Pack, why: str) -> None:
        trials = [item.trial for job in pack.jobs for item in job.items]
        self._write(event="death", pack=pack.number, stage=pack.jobs[0].stage, trials=trials, why=why)

    def _write(self, **event: Any) -> None:
        event = {"at_s": round(time.time(), 3), **event}
        try:
            self._file.write(json.dumps(event, separators=(",", ":")) + "\n")
            self._file.flush()
        except OSError as error:
            raise _cannot_be_written(self.path, error) from error
        self._told(event)


def _story(job: Job, report: Report) -> dict[str, Any]:
    sealed = [outcome.sealed for outcome in report.outcomes if outcome.sealed and outcome.fate == "done"]
    return {
        "stage": job.stage,
        "reason": job.reason,
        "fates": {outcome.trial: outcome.fate.value for outcome in report.outcomes},
        "why": {outcome.trial: str(outcome.problem) for outcome in report.outcomes if outcome.problem},
        "seconds": round(report.seconds, 4),
        **{f"{name}_s": round(seconds, 4) for name, seconds in report.spent.items()},
        "rows": sum(seal["n_rows"] for _, seal in sealed),
        "bytes": sum(state[0] for state, _ in sealed),
    }


def _cannot_be_written(path: Path, error: OSError) -> FullError:
    fix = "make room or mend the permissions there, then run again"
    return FullError(Problem(what="cannot be written", where=str(path), why=error.strerror or str(error), fix=fix))


def records(cache: Path) -> list[Path]:
    """Of all runs on the cache, the oldest first."""
    return sorted((cache / FOLDER).glob("*.jsonl"))


def follow(path: Path) -> Iterator[Tally]:
    """How far the run is, again and again, each time with what was added since; ends where the run has."""
    tally = Tally()
    with path.open(encoding="utf-8") as file:
        begun = ""
        while not tally.ended:
            begun += file.read()
            *lines, begun = begun.split("\n")  # the last may not be written to its end yet
            for line in lines:
                tally.add(json.loads(line))
            yield tally
