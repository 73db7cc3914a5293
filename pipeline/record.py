"""A run's record: `cache/runs/TIME.jsonl`, a line per event as it happens. It tells workers that they see the cache, and whoever looks how
the run goes."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import claims
from pipeline.errors import PassingError, Problem, RequestError
from pipeline.fates import Fate
from pipeline.packs import Pack, PackReport, stop_path
from pipeline.plan import Plan
from pipeline.publish import writing_to
from pipeline.tally import Event, Tally
from pipeline.worker import Job, Report

FOLDER = "runs"
EMPTY_S = 10.0  # after which a record has its first line


class Record:
    """The record of a run that goes on; `execute` tells it what happens. told: called with each event.

    Leaving the `with` block writes the end. Where it is left by an error, workers are told to begin no more jobs.
    """

    def __init__(self, cache: Path, plan: Plan, *, on: str, told: Callable[[Event], None]) -> None:
        self._plan, self._on, self._told = plan, on, told
        time_utc = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S.%fZ")
        self.path = cache.absolute() / FOLDER / f"{time_utc}-{socket.gethostname()}-{os.getpid()}.jsonl"

    def __enter__(self) -> Record:
        """Raises what `publish.writing_to` does."""
        with writing_to(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb", buffering=0)
        to_do = {stage.name: len(tasks) for stage in self._plan.config.stages if (tasks := self._plan.tasks_of(stage.name))}
        trials = len(self._plan.trials)
        try:
            self._write(event="start", on=self._on, host=socket.gethostname(), pid=os.getpid(), trials=trials, to_do=to_do)
        except PassingError:
            self._file.close()
            self.path.unlink()  # who watches a run that never says anything waits for ever
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # On a full disk, say, an error that is on its way tells more.
        with contextlib.nullcontext() if kind is None else contextlib.suppress(PassingError), writing_to(self.path), self._file:
            if kind is None:
                self._write(event="end", how="done", why="")
            else:
                stop_path(self.path).touch()
                self._write(event="end", how="stopped", why=str(error) or kind.__name__)

    def workers(self, dashboard: str, n_workers: int) -> None:
        """There are so many now."""
        self._write(event="workers", dashboard=dashboard, n_workers=n_workers)

    def finished(self, pack: Pack, report: PackReport, left_s: float | None) -> None:
        """What was not begun is no event."""
        for job, one, began_utc in zip(pack.jobs, report.reports, report.began_utc, strict=True):
            if all(outcome.fate is Fate.LEFT for outcome in one.outcomes):
                continue
            self._write(event="job", pack=pack.number, where=report.where, began_utc=began_utc, left_s=left_s, **_story(job, one))

    def died(self, pack: Pack, why: str) -> None:
        trials = [item.trial for job in pack.jobs for item in job.items]
        self._write(event="death", pack=pack.number, stage=pack.jobs[0].stage, trials=trials, why=why)

    def lost(self, n_tracks: Mapping[str, int]) -> None:
        self._write(event="lost", tracks=n_tracks)

    def _write(self, **event: Any) -> None:
        event = {"at_s": round(time.time(), 3), **event}
        with writing_to(self.path):
            self._append(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        self._told(event)

    def _append(self, line: bytes) -> None:
        """The whole line or nothing: half of one would spoil the next."""
        start = self._file.tell()
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            self._file.seek(start)
            self._file.truncate()
            raise


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


def newest(cache: Path) -> Path:
    """The record of the run on the cache that was begun last. Raises RequestError where there was none."""
    found = sorted((cache / FOLDER).glob("*.jsonl"))
    if not found:
        raise RequestError(
            Problem(what="there is no run to watch", where=str(cache), why="none was ever begun", fix="start one: affectpipe run")
        )
    return found[-1]


def follow(path: Path, every_s: float = 1.0) -> Iterator[Tally]:
    """How far the run is, again and again; ends where the run has, or where its process is gone, which is seen on its own machine only.

    Raises RequestError where the record is damaged, or empty for good.
    """
    tally = Tally()
    begun = ""
    opened_s = time.monotonic()
    with path.open(encoding="utf-8") as file:
        while True:
            is_gone = tally.host == socket.gethostname() and not claims.is_there(tally.pid)
            begun += file.read()
            *lines, begun = begun.split("\n")  # the last may not be written to its end yet
            for line in lines:
                try:
                    tally.add(json.loads(line))
                except (ValueError, KeyError, TypeError) as error:
                    raise _unreadable(path, f"{type(error).__name__}: {error}") from error
            if not tally.host and time.monotonic() - opened_s > EMPTY_S:
                raise _unreadable(path, "its run was killed before it began")
            if is_gone and not tally.ended:
                tally.ended = "killed"
            yield tally
            if tally.ended:
                return
            time.sleep(every_s)


def _unreadable(path: Path, why: str) -> RequestError:
    return RequestError(
        Problem(what="the record of the run cannot be read", where=str(path), why=why, fix="remove it, and watch another run")
    )
