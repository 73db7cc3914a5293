"""Pools of workers: who does the packs. This process itself is one; `clusters` has the others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from pipeline.packs import Hand, Pack, PackReport
from pipeline.places import Place


class Pool(Protocol):
    """Workers, wherever they are.

    has_gpus: whether work for GPUs has workers of its own; else all work is alike. pack_s: how long a pack should take at most.
    """

    @property
    def has_gpus(self) -> bool: ...

    @property
    def pack_s(self) -> float: ...

    def room(self, *, on_gpu: bool) -> int:
        """How many more packs it wants now: one at least where it has none."""
        ...

    def n_slots(self, *, on_gpu: bool) -> int:
        """How many packs can run at once."""
        ...

    def submit(self, pack: Pack) -> None: ...

    def next(self, within_s: float) -> tuple[Pack, PackReport | str] | None:
        """The next pack that ended, with its report, or what is known of its workers' deaths; None where none ended within the time.

        Raises RequestError where its workers cannot do the work, PassingError where they are lost.
        """
        ...


class Inline:
    """This process, one pack at a time."""

    has_gpus = False
    pack_s = 0.0  # a job makes a pack, so that each is told of

    def __init__(self) -> None:
        self._hand, self._pack = Hand(), list[Pack]()

    def room(self, *, on_gpu: bool) -> int:
        return 1 - len(self._pack)

    def n_slots(self, *, on_gpu: bool) -> int:
        return 1

    def submit(self, pack: Pack) -> None:
        self._pack.append(pack)

    def next(self, within_s: float) -> tuple[Pack, PackReport | str] | None:
        pack = self._pack.pop()
        return pack, self._hand.run(pack)


@contextlib.contextmanager
def opened(place: Place, *, device: str, told: Callable[[str, int], None], clusters: Path, logs: Path) -> Iterator[Pool]:
    """The pool of a place, until the block ends: see `clusters.opened`. Raises RequestError where its workers cannot be had."""
    if place.kind == "inline":
        yield Inline()
        return
    from pipeline.clusters import opened as opened_cluster

    with opened_cluster(place, device=device, told=told, clusters=clusters, logs=logs) as pool:
        yield pool
