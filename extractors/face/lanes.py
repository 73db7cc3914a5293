"""A cascade on two cores: every second picture on each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from extractors.contract import Float32, UInt8
from extractors.face.cascade import Cascade, Spotted

LANES = 2


class Lanes:
    """Shares pictures among cascades that have one thread each, and does what one of them does.

    Threads inside the small networks wait for each other most of the time; whole pictures need not. There are as many shares on
    a machine with one core, where they are worked on in turn, so that the batches and with them the last bits are the same everywhere.
    """

    def __init__(self, *, min_face_px: int, device: str, precision: str) -> None:
        import torch

        self._cascades = [Cascade(min_face_px=min_face_px, device=device, precision=precision) for _ in range(LANES)]
        self._map: Callable[..., Any] = map
        if torch.get_num_threads() > 1:
            self._map = ThreadPoolExecutor(LANES, thread_name_prefix="faces").map

    def search(self, images: Sequence[UInt8] | UInt8) -> list[Spotted]:
        """As Cascade.search."""
        return self._shared(lambda cascade, some: cascade.search(images[some]))

    def look(self, images: Sequence[UInt8] | UInt8, expected: Sequence[Float32]) -> list[Spotted]:
        """As Cascade.look."""
        return self._shared(lambda cascade, some: cascade.look(images[some], expected[some]))

    def check(self, images: Sequence[UInt8] | UInt8, squares: Sequence[Float32]) -> list[Spotted]:
        """As Cascade.check."""
        return self._shared(lambda cascade, some: cascade.check(images[some], squares[some]))

    def _shared(self, task: Callable[[Cascade, slice], list[Spotted]]) -> list[Spotted]:
        parts = list(self._map(task, self._cascades, [slice(lane, None, LANES) for lane in range(LANES)]))
        spotted: list[Spotted] = [part[i] for i in range(len(parts[0])) for part in parts if i < len(part)]
        return spotted
