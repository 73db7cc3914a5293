"""A pack: jobs that one worker does in one go. The one function that computes them, whoever calls it and wherever."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pipeline import claims
from pipeline.cache import read_seal
from pipeline.errors import PassingError, Problem, RequestError
from pipeline.fates import Fate, diagnosed
from pipeline.publish import writing_to
from pipeline.stages import Item
from pipeline.worker import Job, Outcome, Report, Worker

MAX_DEATHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """record: of the run whose it is, a file that every worker must be able to see; on_gpu: whether it is work for one.

    longest_s: who has been at it for so long begins no more of its jobs. One of them is always begun.
    """

    number: int
    record: Path
    on_gpu: bool
    jobs: tuple[Job, ...]
    longest_s: float = math.inf

    @property
    def run(self) -> str:
        return self.record.stem

    @property
    def stop(self) -> Path:
        return stop_path(self.record)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackReport:
    """A pack's end. where: host and process; reports: one per job, in order; began_utc: when each began."""

    where: str
    reports: tuple[Report, ...]
    began_utc: tuple[str, ...]


def stop_path(record: Path) -> Path:
    """Where there is such a file, the run is to stop: workers begin no more jobs."""
    return record.with_suffix(".stop")


@dataclass(slots=True)
class Hand:
    """What does packs one after the other, and keeps loaded models from one to the next."""

    worker: Worker = field(default_factory=Worker)

    def run(self, pack: Pack, is_stopping: Callable[[], bool] = lambda: False) -> PackReport:
        """Raises RequestError where this process does not see the cache."""
        if not _is_seen(pack.record):
            why, fix = f"there is no {pack.record}", "let all machines have the cache and the videos under the same paths"
            raise RequestError(Problem(what="a worker does not see the cache", where=socket.gethostname(), why=why, fix=fix))
        reports: list[Report] = []
        began_utc: list[str] = []
        began_s = time.monotonic()
        for job in pack.jobs:
            began_utc.append(datetime.now(UTC).isoformat(timespec="milliseconds"))
            is_late = bool(reports) and time.monotonic() - began_s > pack.longest_s
            if is_late or is_stopping() or os.path.exists(pack.stop):
                reports.append(_left(job))
            else:
                reports.append(self._run(job, pack.run))
        return PackReport(where=f"{socket.gethostname()}:{os.getpid()}", reports=tuple(reports), began_utc=tuple(began_utc))

    def _run(self, job: Job, run: str) -> Report:
        """The job without those of its items that others have done or are at, or that killed whoever computed them."""
        outcomes: list[Outcome] = []
        mine: list[Item] = []
        try:
            for item in job.items:
                settled = _settled(item, job, run)
                outcomes.append(settled) if settled else mine.append(item)
        except (OSError, PassingError) as error:
            for item in mine:
                claims.release(claims.claim_path(item.target))
            fate, problem = diagnosed(error, use=job.use, where=job.source.name)
            return _report(job, [Outcome(key=item.key, trial=item.trial, fate=fate, problem=problem) for item in job.items])
        if not mine:
            return _report(job, outcomes)
        with claims.HOLDER.holding([claims.claim_path(item.target) for item in mine]):
            report = self.worker.run(replace(job, items=tuple(mine)))
        return replace(report, outcomes=(*outcomes, *report.outcomes))


def _is_seen(record: Path) -> bool:
    """Where the file system fails for a moment, the jobs will tell."""
    try:
        return record.exists()
    except OSError:
        return True


def _settled(item: Item, job: Job, run: str) -> Outcome | None:
    """None where it is now this process's to compute. Raises OSError and PassingError where the cache cannot be read or written."""
    if not item.over and item.target.exists() and (sealed := read_seal(item.target, item.key)):
        return Outcome(key=item.key, trial=item.trial, fate=Fate.FOUND, sealed=sealed)
    with writing_to(item.target):
        claim = claims.take(claims.claim_path(item.target), run)
    if not claims.is_ours(claim):
        return Outcome(key=item.key, trial=item.trial, fate=Fate.ELSEWHERE)
    if claim.deaths < MAX_DEATHS:
        return None
    claims.release(claims.claim_path(item.target))
    why = f"the process that computed it died {claim.deaths} times: it crashed, had no memory left, or its time was up"
    fix = "see what the workers said; once it is mended, run with --retry-failed"
    problem = Problem(what=f"kills whoever runs {job.stage!r} on it", where=job.source.name, why=why, fix=fix)
    return Outcome(key=item.key, trial=item.trial, fate=Fate.KILLED, problem=problem)


def _report(job: Job, outcomes: Sequence[Outcome]) -> Report:
    return Report(stage=job.stage, seconds=0.0, outcomes=tuple(outcomes))


def _left(job: Job) -> Report:
    return _report(job, [Outcome(key=item.key, trial=item.trial, fate=Fate.LEFT) for item in job.items])
