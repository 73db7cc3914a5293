"""Optimisers and the course of the learning rate: torch's own, as recipes name them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, ReduceLROnPlateau

from trainer.recipe import Training

PLATEAU_FACTOR = 0.5


def new_optimiser(training: Training, weights: Iterable[nn.Parameter]) -> Optimizer:
    if training.optimiser == "sgd":
        return SGD(weights, training.lr, training.momentum, weight_decay=training.weight_decay)
    kind: type[Adam] | type[AdamW] = Adam if training.optimiser == "adam" else AdamW
    return kind(weights, training.lr, weight_decay=training.weight_decay)


class Schedule:
    """The learning rate after each step and each epoch. steps: of an epoch."""

    def __init__(self, training: Training, optimiser: Optimizer, steps: int) -> None:
        steps = max(steps, 1)
        self._by_step: LambdaLR | CosineAnnealingWarmRestarts | None = None
        self._plateau: ReduceLROnPlateau | None = None
        if training.schedule == "warmup_cosine":
            total = training.epochs * steps
            self._by_step = LambdaLR(optimiser, lambda step: warmup_cosine(step, steps, total))
        elif training.schedule == "warm_restarts":
            # Loshchilov and Hutter, arXiv 1608.03983, equation 5, by fractions of an epoch.
            period = training.restart_epochs * steps
            self._by_step = CosineAnnealingWarmRestarts(optimiser, period, training.restart_growth)
        elif training.schedule == "plateau":
            # torch's own threshold is a share of the best value, and takes a fall for a rise where that is below 0.
            self._plateau = ReduceLROnPlateau(optimiser, "max", PLATEAU_FACTOR, training.plateau_epochs, threshold=0.0)

    def step(self) -> None:
        if self._by_step is not None:
            self._by_step.step()

    def epoch_done(self, value: float) -> None:
        """value: on the held-out trials, more is better."""
        if self._plateau is not None:
            self._plateau.step(value)

    def state_dict(self) -> dict[str, object]:
        chosen = self._by_step or self._plateau
        return {} if chosen is None else chosen.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        chosen = self._by_step or self._plateau
        if chosen is not None:
            chosen.load_state_dict(state)


def warmup_cosine(step: int, warm: int, total: int) -> float:
    """The share of the learning rate: rising in even steps over the first `warm`, then a half cosine down to 0 at `total`."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))
