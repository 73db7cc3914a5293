"""The worker: takes one job, returns one report. A bad video is a recorded failure, not a dead run."""

from __future__ import annotations

import gc
import re
import socket
import sys
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
from pipeline.cache import Seal, read_seal
from pipeline.code_digest import code_digest
from pipeline.errors import PassingError, Problem, RequestError, TransientError
from pipeline.fates import Fate, diagnosed, is_out_of_memory
from pipeline.keys import finding
from pipeline.memo import FileState, state_of
from pipeline.spent import Spent
from pipeline.stages import Item, Recipe
from pipeline.threads import allowed_threads

MODELS_KEPT = 2
DEVICE = re.compile(r"cuda(?::(\d{1,4}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One stage over the trials of one source, to be computed. Plain data: it can go to another process.

    identities: per item's key its whole identity. source_state: what `memo.state_of` said when its digest was taken. code: what
    `code_digest` says of the extractor where the job was made.
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
    code: str
    remote: Remote | None = None  # where the weights are fetched from


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one item. sealed: of an artifact that is there, its file's state and its seal; problem: of one that is not."""

    key: str
    trial: str
    fate: Fate
    problem: Problem | None = None
    sealed: tuple[FileState, Seal] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A job's end. spent: where the seconds went, see `Spent`."""

    stage: str
    seconds: float
    outcomes: tuple[Outcome, ...]
    spent: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Worker:
    """Runs jobs one after the other. Models are loaded once and kept while they are in use; weights that could not be fetched are not
    asked for again."""

    models: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)
    unfetched: dict[Remote, ExtractorError] = field(default_factory=dict)

    def run(self, job: Job) -> Report:
        started, spent = time.perf_counter(), Spent()
        done: dict[str, tuple[FileState, Seal]] = {}
        fate, problem = Fate.PASSING, None
        try:
            self._compute(job, done, spent)
        except Exception as error:  # an outside extractor may raise anything; one trial must not end the run
            fate, problem = diagnosed(error, use=job.use, where=job.source.name)
        outcomes = tuple(_outcome(item, done.get(item.key), problem, fate) for item in job.items)
        seconds = time.perf_counter() - started
        return Report(stage=job.stage, seconds=seconds, outcomes=outcomes, spent=spent.shares(seconds))

    def _compute(self, job: Job, done: dict[str, tuple[FileState, Seal]], spent: Spent) -> None:
        """Where memory runs out, what is left is computed again in batches of half the size, for as long as they can be halved."""
        if (code := _code(job.use)) != job.code:
            why = f"its digest is {code[:12]} here and {job.code[:12]} where the run was started"
            fix = "install the same version there, and start the workers anew"
            raise PassingError(Problem(what=f"the code of {job.use!r} is another", where=socket.gethostname(), why=why, fix=fix))
        with spent.on("load"):
            recipe = self._recipe(job)
        publish = _publisher(job, done, spent)
        while True:
            items = [item for item in job.items if item.key not in done]
            try:
                return stages.run(recipe, job.source, items, publish, spent)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                why = str(error)
            _free_device_memory()
            if not _halve_batch(recipe.extractor):
                fix = "run again with fewer workers, or smaller batches"
                raise TransientError(Problem(what="memory ran out", where=job.source.name, why=why, fix=fix))

    def _recipe(self, job: Job) -> Recipe:
        extractor = self._extractor(job)
        return Recipe(yields=job.kind, reads=tuple(extractor.reads(job.params)), extractor=extractor, root=job.root)

    def _extractor(self, job: Job) -> Any:
        weights_sha256 = next(iter(job.identities.values()))["stage"]["weights"]
        key = (job.use, job.params, weights_sha256, job.precision, job.device)
        if key not in self.models:
            while len(self.models) >= MODELS_KEPT:
                self.models.popitem(last=False)
                gc.unfreeze()  # so that what let go of it is looked through once
                gc.collect()
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


def check_device(device: str, *, here: bool = True) -> None:
    """Raises RequestError for a word that names no device, and for a GPU that this machine does not have, where it is to be used `here`."""
    if device in ("auto", "cpu"):
        return
    named = DEVICE.fullmatch(device)
    if named is None:
        raise _no_device(device, "unknown device", "known: cpu, auto, cuda, cuda:N")
    if not here:
        return
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


def _code(use: str) -> str:
    """Of what this process runs: a file that is edited meanwhile is not loaded again."""
    return _code_of(load(use), use)


@cache
def _code_of(extractor: Any, use: str) -> str:
    return code_digest(use)


def _device(job: Job) -> str:
    """auto: a GPU where there is one."""
    if job.device != "auto":
        return job.device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _outcome(item: Item, sealed: tuple[FileState, Seal] | None, problem: Problem | None, fate: Fate) -> Outcome:
    if sealed is not None:
        return Outcome(key=item.key, trial=item.trial, fate=Fate.DONE, sealed=sealed)
    if problem is None:
        problem = Problem(what="gave no track", where=item.trial, why="the extractor ended without one", fix="mend the extractor")
    return Outcome(key=item.key, trial=item.trial, fate=fate, problem=problem)


def _free_device_memory() -> None:
    """What torch keeps of it for later, and what an ended computation still refers to."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _halve_batch(extractor: Any) -> bool:
    batch = getattr(extractor, "batch", 1)
    if batch > 1:
        extractor.batch = batch // 2
    return bool(batch > 1)


def _publisher(job: Job, done: dict[str, tuple[FileState, Seal]], spent: Spent) -> stages.Publish:
    choices = getattr(load(job.use), "choices", ())
    started = time.perf_counter()

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
        with spent.on("write"):
            write(item.target, about)
            sealed = read_seal(item.target, item.key)
        if sealed is None:
            why, fix = "what was read back is not what was written", "look at the disk, then run again"
            raise TransientError(Problem(what="was damaged as it was written", where=str(item.target), why=why, fix=fix))
        done[item.key] = sealed

    return publish
