"""The worker: takes one job, returns one report. A bad video is a recorded failure, not a dead run."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extractors.contract import ExtractorError, Kind, Runtime
from extractors.registry import load
from pipeline import stages
from pipeline.artifact import Provenance
from pipeline.errors import PassingError, Problem, TrialError
from pipeline.stages import Item, Recipe

MODELS_KEPT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage over the trials of one source, to be computed. Plain data: it can go to another process.

    identities: per item's key its whole identity.
    """

    stage: str
    use: str
    params: Any
    kind: Kind
    precision: str
    weights: Path | None
    root: Path | None
    source: Path
    items: tuple[Item, ...]
    identities: dict[str, dict[str, Any]]
    device: str
    reason: str


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
    """Runs jobs one after the other. Models are loaded once and kept while they are in use."""

    models: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)

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
            runtime = Runtime(device=_device(job), precision=job.precision, weights=job.weights)
            self.models[key] = load(job.use)(job.params, runtime)
        self.models.move_to_end(key)
        return self.models[key]


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
    def publish(item: Item, write: Callable[[Path, Provenance], None], warnings: Sequence[str], media: dict[str, Any]) -> None:
        about = Provenance(
            key=item.key,
            stage=job.stage,
            trial=item.trial,
            licence=load(job.use).licence,
            code=code_digest(job.use),
            identity=job.identities[item.key],
            seconds=(time.perf_counter() - started) / len(job.items),
            device=_device(job),
            warnings=warnings,
            media=media,
        )
        write(item.target, about)
        done.add(item.key)

    return publish


def code_digest(use: str) -> str:
    """sha256 of the source of the extractor's module: what `status` compares to find code that changed under the same version."""
    module = inspect.getmodule(load(use))
    return hashlib.sha256(inspect.getsource(module).encode()).hexdigest() if module else ""
