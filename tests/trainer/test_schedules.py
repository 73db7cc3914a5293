"""The course of the learning rate, step by step, against formulas and torch's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from trainer.recipe import Training
from trainer.schedules import Schedule, new_optimiser, warmup_cosine

LR, STEPS = 0.5, 4


def training_of(**more: Any) -> Training:
    return Training(**{"epochs": 6, "lr": LR, "optimiser": "sgd", **more})


def optimiser_of(training: Training) -> Optimizer:
    optimiser = new_optimiser(training, [nn.Parameter(torch.zeros(1))])
    return optimiser


def rates(training: Training, values: list[float] | None = None, restored_after: int | None = None) -> list[float]:
    """Of each step, and the one after the last. values: of each epoch. restored_after: goes on in a new optimiser after this epoch."""
    optimiser = optimiser_of(training)
    schedule, found = Schedule(training, optimiser, STEPS), []
    for epoch in range(training.epochs):
        for _ in range(STEPS):
            found.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
        schedule.epoch_done(values[epoch] if values is not None else 0.0)
        if epoch + 1 == restored_after:
            states = optimiser.state_dict(), schedule.state_dict()
            optimiser = optimiser_of(training)
            schedule = Schedule(training, optimiser, STEPS)
            optimiser.load_state_dict(states[0])
            schedule.load_state_dict(states[1])
    return [*found, optimiser.param_groups[0]["lr"]]


def test_constant() -> None:
    assert rates(training_of()) == [LR] * (6 * STEPS + 1)


def test_a_cosine_after_an_epoch_of_warm_up() -> None:
    """A quarter, a half, three quarters and all of the rate in the first epoch's four steps; then half a cosine over the other twenty."""
    found = rates(training_of(schedule="warmup_cosine"))
    assert found[:STEPS] == [LR / 4, LR / 2, 3 * LR / 4, LR]
    after = [LR * (1 + math.cos(math.pi * step / 20)) / 2 for step in range(21)]
    assert found[STEPS:] == pytest.approx(after, rel=1e-12, abs=1e-15)
    assert found[STEPS + 10] == pytest.approx(LR / 2), "half way down in the middle"
    assert found[-1] == 0
    assert all(rate > 0 for rate in found[:-1]), "every step learns"


def test_an_epoch_of_warm_up_alone() -> None:
    assert rates(training_of(schedule="warmup_cosine", epochs=1))[:-1] == [LR / 4, LR / 2, 3 * LR / 4, LR]
    assert [warmup_cosine(step, 1, 3) for step in range(4)] == [1.0, 1.0, pytest.approx(0.5), pytest.approx(0.0)]


@pytest.mark.parametrize("growth", [1, 2])
def test_warm_restarts_are_torchs(growth: int) -> None:
    """Told in fractions of an epoch, as its documentation has it; periods of 2, 2, 2 epochs, or of 2 and 4."""
    found = rates(training_of(schedule="warm_restarts", restart_epochs=2, restart_growth=growth))
    optimiser = SGD([nn.Parameter(torch.zeros(1))], LR)
    known = CosineAnnealingWarmRestarts(optimiser, 2, growth)
    expected = []
    for epoch in range(6):
        for step in range(STEPS):
            known.step(epoch + step / STEPS)
            expected.append(optimiser.param_groups[0]["lr"])
    assert found[:-1] == pytest.approx(expected, rel=1e-12)
    begun = [step for step, rate in enumerate(found) if rate == LR]
    assert begun == ([0, 8, 16, 24] if growth == 1 else [0, 8, 24])
    by_formula = [LR * (1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert found[:8] == pytest.approx(by_formula, rel=1e-12)


def test_a_plateau_halves() -> None:
    """After more than two epochs that are no better than the best, of whatever sign, by whatever little."""
    values = [0.1, 0.2, 0.2, 0.19, 0.1, 0.3, 0.3, 0.3, 0.3]
    found = rates(training_of(schedule="plateau", plateau_epochs=2, epochs=9), values)
    by_epoch = found[::STEPS]
    assert by_epoch == [LR] * 5 + [LR / 2] * 4 + [LR / 4]
    assert [set(found[STEPS * i : STEPS * i + STEPS]) for i in range(9)] == [{rate} for rate in by_epoch[:-1]], "within an epoch it is one"


@pytest.mark.parametrize(("step", "halved"), [(0.0, True), (-1e-5, True), (1e-5, False)])
@pytest.mark.parametrize("first", [-0.5, 0.5])
def test_what_rises_is_no_plateau(first: float, step: float, halved: bool) -> None:
    values = [first + step * epoch for epoch in range(6)]
    found = rates(training_of(schedule="plateau", plateau_epochs=2), values)
    assert (found[-1] < LR) is halved


@pytest.mark.parametrize("schedule", ["constant", "warmup_cosine", "warm_restarts", "plateau"])
def test_one_that_goes_on_is_one_that_went_through(schedule: str) -> None:
    training, values = training_of(schedule=schedule, restart_epochs=2, plateau_epochs=0), [3.0, 2.0, 1.0, 2.0, 4.0, 1.0]
    whole = rates(training, values)
    for epoch in (1, 3, 5):
        assert rates(training, values, restored_after=epoch) == whole


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW), ("sgd", SGD)])
def test_optimisers(name: str, kind: type[Optimizer]) -> None:
    optimiser = optimiser_of(training_of(optimiser=name, weight_decay=0.1, momentum=0.9))
    assert type(optimiser) is kind
    group = optimiser.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (LR, 0.1)
    assert group.get("momentum") == (0.9 if name == "sgd" else None)
