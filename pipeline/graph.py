"""The DAG of stages: names, order and cycles. Pure: no files, no extractors run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extractors.contract import Kind
from extractors.hub import Remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A validated node of the stages file. `params` are typed and default-filled; `inputs` follow the order of `extractor.reads`."""

    name: str
    use: str
    extractor: Any  # a class of the contract's Protocols
    params: Any  # an instance of extractor.Params
    inputs: tuple[str, ...] = ()
    weights: str | None = None  # the name of a file
    remote: Remote | None = None  # or where the weights are fetched from
    sha256: str | None = None
    precision: str = "float32"
    root: Path | None = None  # of pictures or tables beside the videos
    line: int = 1  # in the stages file

    @property
    def yields(self) -> Kind:
        return Kind(self.extractor.yields)


def find_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The first cycle among name -> inputs, as a path whose last name is its first; empty when there is none."""
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        pending: list[tuple[str, bool]] = [(start, False)]
        while pending:
            name, leaving = pending.pop()
            if leaving:
                path.pop()
                done.add(name)
            elif name in path:
                return (*path[path.index(name) :], name)
            elif name not in done:
                path.append(name)
                pending.append((name, True))
                pending.extend((other, False) for other in edges.get(name, ()) if other in edges)
    return ()


def in_order(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Stages so that every one stands after those it reads; otherwise as written. The stages must hold no cycle."""
    by_name = {stage.name: stage for stage in stages}
    placed: dict[str, Stage] = {}

    def place(stage: Stage) -> None:
        for name in stage.inputs:
            if name not in placed:
                place(by_name[name])
        placed.setdefault(stage.name, stage)

    for stage in stages:
        place(stage)
    return tuple(placed.values())


def with_needed(stages: Sequence[Stage], names: Iterable[str]) -> set[str]:
    """The named stages and every stage that they read, directly or not."""
    by_name = {stage.name: stage for stage in stages}
    needed: set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name not in needed:
            needed.add(name)
            pending.extend(by_name[name].inputs)
    return needed


def with_dependents(stages: Sequence[Stage], names: Iterable[str]) -> set[str]:
    """The named stages and every stage that reads them, directly or not. The stages must stand in an order in which they can run."""
    found = set(names)
    for stage in stages:
        if found.intersection(stage.inputs):
            found.add(stage.name)
    return found
