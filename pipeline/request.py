"""What a command asks for: which videos, labels, stages file, cache and store. Made ready, it is a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from extractors.contract import Person
from pipeline.cache import Cache
from pipeline.config import Config
from pipeline.config import load as load_config
from pipeline.plan import Plan, make_plan
from pipeline.sources import find_sources
from pipeline.trials import Failure, Trial, make_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options that the commands share. tasks: empty for every task that is found; weights: folders, searched in order."""

    videos: Path
    stages: Path
    cache: Path
    store: Path | None = None
    labels: Path | None = None
    tasks: tuple[str, ...] = ()
    weights: tuple[Path, ...] = ()
    follow_links: bool = False

    @property
    def store_folder(self) -> Path:
        return self.store or Path("stores") / (self.videos.resolve().name or "store")

    @property
    def weights_folders(self) -> tuple[Path, ...]:
        return weights_folders(self.weights, self.stages, self.cache)


def weights_folders(named: Sequence[Path], stages: Path, cache: Path) -> tuple[Path, ...]:
    """Where weight files are looked for, in this order."""
    return (*named, stages.parent / "weights", cache / "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request whose stages file is valid and whose trials are known."""

    request: Request
    config: Config
    cache: Cache
    trials: tuple[Trial, ...]
    failures: tuple[Failure, ...]

    def plan(
        self,
        *,
        only: Sequence[str] = (),
        force: Sequence[str] = (),
        retry_failed: bool = False,
    ) -> Plan:
        return make_plan(
            self.config,
            self.trials,
            self.cache,
            weights_folders=self.request.weights_folders,
            only=only,
            force=force,
            retry_failed=retry_failed,
        )

    def for_everyone(self) -> Prepared:
        """With a trial for each person that a label could name in each source: whatever labels are given, none needs more."""
        named = {trial.name: trial for trial in self.trials}
        for source in {trial.source.name: trial.source for trial in self.trials}.values():
            for person, name in (("main", source.name), ("left", f"{source.name}_left"), ("right", f"{source.name}_right")):
                named.setdefault(name, Trial(name=name, source=source, person=cast(Person, person)))
        return dataclasses.replace(self, trials=tuple(named.values()))


def prepare(request: Request, told: Callable[[int, int], None] | None = None) -> Prepared:
    """Raises RequestError where the stages file, the videos or the labels folder cannot be used."""
    config = load_config(request.stages)
    cache = Cache(request.cache)
    labels = None
    if request.labels is not None:
        from pipeline.annotations import read_labels

        labels = read_labels(request.labels, request.tasks)
    found = find_sources(request.videos, cache.digests, follow_links=request.follow_links, told=told)
    trials, failures = make_trials(found, labels)
    cache.digests.save()
    return Prepared(request=request, config=config, cache=cache, trials=trials, failures=failures)
