"""`run`: compute what the plan asks for, assemble the store, write failures.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import failures as failure_list
from pipeline.assemble import assemble
from pipeline.cache import Cache
from pipeline.executor import Ran, execute
from pipeline.places import INLINE, Place
from pipeline.plan import Plan
from pipeline.pools import opened
from pipeline.profiles import clusters_file
from pipeline.progress import Watch
from pipeline.publish import sweep
from pipeline.record import Record
from pipeline.request import Prepared


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A run's end. written and kept: store files; failures: rows of failures.csv."""

    store: Path
    trials: tuple[str, ...]
    computed: Mapping[str, int]
    written: tuple[str, ...]
    kept: tuple[str, ...]
    removed: tuple[str, ...]
    failures: tuple[Mapping[str, str], ...]
    failures_path: Path
    has_errors: bool

    @property
    def n_computed(self) -> int:
        return sum(self.computed.values())

    def as_json(self) -> dict[str, Any]:
        names = ("store", "trials", "computed", "written", "kept", "removed", "failures", "failures_path", "has_errors")
        return {name: getattr(self, name) for name in names}


def run_to_store(
    prepared: Prepared,
    plan: Plan,
    *,
    only: Sequence[str] = (),
    device: str = "auto",
    on: Place = INLINE,
    clusters: Path | None = None,
    quiet: bool = False,
) -> Result:
    """Raises PassingError where the store cannot be written or the workers are lost, RequestError where they cannot do the work; a trial
    that cannot be done is a failure in the result.

    clusters: the clusters.yaml, where it is not in one of its places.
    """
    folder, cache = prepared.request.store_folder, prepared.cache
    cache.sweep()
    sweep(folder)
    ran = Ran()
    if plan.tasks:
        ran = _execute(plan, cache, clusters=clusters or clusters_file(prepared.request.stages), device=device, on=on, quiet=quiet)
    assembled = assemble(plan, cache, folder, only=only)
    found = failure_list.collect(plan, cache, ran, (*prepared.failures, *assembled.failures))
    path = failure_list.write(folder, found)
    cache.save()
    return Result(
        store=folder,
        trials=assembled.trials,
        computed={stage: n for stage, n in ran.computed.items() if n},
        written=assembled.written,
        kept=assembled.kept,
        removed=assembled.removed,
        failures=tuple(failure_list.as_rows(found)),
        failures_path=path,
        has_errors=failure_list.has_errors(found),
    )


def _execute(plan: Plan, cache: Cache, *, clusters: Path, device: str, on: Place, quiet: bool) -> Ran:
    with (
        Watch(quiet=quiet) as watch,
        Record(cache.root, plan, on=str(on), told=watch.told) as record,
        opened(on, device=device, told=record.workers, clusters=clusters, logs=record.path.with_suffix(".logs")) as pool,
    ):
        return execute(plan, cache, pool, record, record=record.path, device=device)
