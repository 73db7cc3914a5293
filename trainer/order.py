"""In which order samples are seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from trainer.arrays import Int64
from trainer.errors import Problem, TrainerError

Shuffle = Literal["none", "windows", "trials"]


class Order:
    """A sampler for a DataLoader: every sample once an epoch, in an order that seed and epoch decide, whatever the number of workers.

    trial: (W,) of each sample, as a dataset has it. "none": as they are, trial after trial. "windows": all shuffled. "trials": trials are
    shuffled, and the windows of each within it; the windows of one trial stay together, which reads a disk in long pieces, and makes
    batches of few trials. After `set_epoch(epoch, start)` the first `start` samples of that epoch are passed over: to go on after a break.
    """

    def __init__(self, trial: Int64, shuffle: Shuffle = "none", *, seed: int = 0) -> None:
        """Raises TrainerError for another word than these three."""
        if shuffle not in get_args(Shuffle):
            known = ", ".join(get_args(Shuffle))
            raise TrainerError(Problem(what=f"unknown order {shuffle!r}", where="shuffle", why=f"known: {known}", fix="give one of them"))
        self.trial, self.shuffle, self.seed = trial, shuffle, seed
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return max(len(self.trial) - self.start, 0)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices()[self.start :].tolist())

    def indices(self) -> Int64:
        """(W,) int64 this epoch's order, whole."""
        if self.shuffle == "none":
            return np.arange(len(self.trial), dtype=np.int64)
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.trial))
        if self.shuffle == "windows":
            return shuffled
        _, first, which = np.unique(self.trial[shuffled], return_index=True, return_inverse=True)
        return shuffled[np.argsort(first[which], kind="stable")]  # trials in the order of their first windows
