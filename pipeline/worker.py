"""The worker: takes one job, returns one report. A bad video is a recorded failure, not a dead run."""

from __future__ import annotations

import gc
import inspect
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from extractors.contract import ExtractorError, Kind, Runtime
from extractors.hub import Remote
from extractors.registry import load
from pipeline import stages
from pipeline.artifact import Provenance
from pipeline.code_digest import code_digest
from pipeline.errors import PassingError, Problem, RequestError, TrialError
from pipeline.hdf5 import CorruptFileError
from pipeline.keys import finding
from pipeline.sources import state_of
from pipeline.stages import Item, Recipe
from pipeline.threads import allowed_threads

MODELS_KEPT = 2
DEVICE = re.compile(r"cuda(?::(\d{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage over the trials of one source, to be computed. Plain data: it can go to another process.

    identities: per item's key its whole identity. source_state: what `sources.state_of` said when its digest was taken.
    """

    stage: str
    use: str
    params: Any
    kind: Kind
    precision: str
    weights: Path | None
    root: Path | None
    source: Path
    source_state: tuple[int, int, int] | None
    items: tuple[Item, ...]
    identities: dict[str, dict[str, Any]]
    device: str
    reason: str
    remote: Remote | None = None  # where the weights are fetched from


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one item. problem is None where it was done; passing: it may work another time, so it is not recorded."""

    key: str
    trial: str
    problem: Problem | None = None
    passing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A job's end."""

    stage: str
    seconds: float
    outcomes: tuple[Outcome, ...]


@dataclass(slots=True)
class Worker:
    """Runs jobs one after the other. Models are loaded once and kept while they are in use; weights that could not be fetched are not
    asked for again."""

    models: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)
    unfetched: dict[Remote, ExtractorError] = field(default_factory=dict)

    def run(self, job: Job) -> Report:
        started = time.perf_counter()
        done: set[str] = set()
        problem: Problem | None = None
        passing = False
        try:
            stages.run(self._recipe(job), job.source, job.items, _publisher(job, done, started))
        except TrialError as error:
            problem = error.problems[0]
        except PassingError as error:
            problem, passing = error.problems[0], True
        except ExtractorError as error:
            problem = Problem(what=error.what, where=job.source.name, why=error.why, fix=error.fix)
        except CorruptFileError as error:
            fix = "run `affectpipe verify`, then run again"
            problem, passing = Problem(what="an input artifact is damaged", where=job.source.name, why=str(error), fix=fix), True
        except (OSError, MemoryError) as error:
            why = str(error) or type(error).__name__
            problem, passing = Problem(what="could not be computed", where=job.source.name, why=why, fix="run again"), True
        except Exception as error:  # an outside extractor may raise anything; one trial must not end the run
            problem, passing = _defect(job, error), True
        outcomes = [Outcome(key=item.key, trial=item.trial) if item.key in done else _failed(item, problem, passing) for item in job.items]
        return Report(stage=job.stage, seconds=time.perf_counter() - started, outcomes=tuple(outcomes))

    def _recipe(self, job: Job) -> Recipe:
        extractor = self._extractor(job)
        return Recipe(yields=job.kind, reads=tuple(extractor.reads(job.params)), extractor=extractor, root=job.root)

    def _extractor(self, job: Job) -> Any:
        weights_sha256 = next(iter(job.identities.values()))["stage"]["weights"]
        key = (job.use, job.params, weights_sha256, job.precision, job.device)
        if key not in self.models:
            while len(self.models) >= MODELS_KEPT:
                self.models.popitem(last=False)
            weights = self._fetched(job.stage, job.remote) if job.remote else job.weights
            runtime = Runtime(device=_device(job), precision=job.precision, weights=weights, threads=allowed_threads())
            self.models[key] = load(job.use)(job.params, runtime)
            gc.freeze()  # libraries and models stay: looking through them again and again takes a twentieth of a fast stage's time
        self.models.move_to_end(key)
        return self.models[key]

    def _fetched(self, stage: str, remote: Remote) -> Path:
        """Raises PassingError: a network that is away today may be there tomorrow."""
        try:
            if remote in self.unfetched:
                raise self.unfetched[remote]
            return remote.fetch()
        except ExtractorError as error:
            self.unfetched[remote] = error
            raise PassingError(Problem(what=error.what, where=f"stages.{stage}.weights", why=error.why, fix=error.fix)) from error


def check_device(device: str) -> None:
    """Raises RequestError for a word that names no device, and for a GPU that this machine does not have."""
    if device in ("auto", "cpu"):
        return
    named = DEVICE.fullmatch(device)
    if named is None:
        raise _no_device(device, "unknown device", "known: cpu, auto, cuda, cuda:N")
    try:
        import torch
    except ImportError as error:
        raise _no_device(device, f"torch cannot be imported ({error})", "pip install 'affectpipe[extract]'") from error
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(named[1] or 0) >= n_gpus:
        why = f"torch sees {n_gpus} GPUs, numbered from 0" if n_gpus else "torch sees no GPU on this machine"
        raise _no_device(device, why, "give --device auto, or one that is there")


def _no_device(device: str, why: str, fix: str) -> RequestError:
    return RequestError(Problem(what=f"cannot compute on {device!r}", where="--device", why=why, fix=fix))


@cache
def _code(use: str) -> str:
    """Of what this process runs: a file that is edited meanwhile is not loaded again."""
    return code_digest(use)


def _device(job: Job) -> str:
    """auto: a GPU where there is one. Stages that only decode need no torch to find out."""
    if job.device != "auto":
        return job.device
    if job.kind in (Kind.TIMELINE, Kind.WAVEFORM):
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _failed(item: Item, problem: Problem | None, passing: bool) -> Outcome:
    if problem is None:
        problem = Problem(what="gave no track", where=item.trial, why="the extractor ended without one", fix="mend the extractor")
    return Outcome(key=item.key, trial=item.trial, problem=problem, passing=passing)


def _defect(job: Job, error: Exception) -> Problem:
    frames = inspect.trace()
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else job.use
    why = f"{type(error).__name__}: {error} (at {where})"
    return Problem(what=f"extractor {job.use!r} broke", where=job.source.name, why=why, fix="this is a defect: report it with this line")


def _publisher(job: Job, done: set[str], started: float) -> stages.Publish:
    choices = getattr(load(job.use), "choices", ())

    def publish(item: Item, write: Callable[[Path, Provenance], None], warnings: Sequence[str], media: dict[str, Any]) -> None:
        about = Provenance(
            key=item.key,
            stage=job.stage,
            trial=item.trial,
            licence=load(job.use).licence,
            code=_code(job.use),
            identity=job.identities[item.key],
            seconds=(time.perf_counter() - started) / len(job.items),
            device=_device(job),
            warnings=warnings,
            media=media,
            finding=finding(job.identities[item.key], choices) if choices else "",
        )
        if job.source_state is not None and state_of(job.source) != job.source_state:
            why = "its key would be that of the old bytes"
            problem = Problem(what="the source changed during the run", where=job.source.name, why=why, fix="run again")
            raise PassingError(problem)
        write(item.target, about)
        done.add(item.key)

    return publish
