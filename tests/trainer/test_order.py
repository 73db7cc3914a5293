"""Orders: every sample once, decided by seed and epoch, and whole trials together where asked."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import pytest

from trainer.errors import TrainerError
from trainer.order import Order

TRIAL = np.repeat([3, 5, 8, 9, 11], [4, 1, 7, 2, 6])


def orders(shuffle: Any, epochs: range = range(3), **more: Any) -> list[list[int]]:
    order = Order(TRIAL, shuffle, **more)
    found = []
    for epoch in epochs:
        order.set_epoch(epoch)
        found.append(list(order))
    return found


def test_unshuffled_is_as_it_is() -> None:
    assert orders("none") == [list(range(20))] * 3


@pytest.mark.parametrize("shuffle", ["windows", "trials"])
def test_an_order_is_decided_by_seed_and_epoch(shuffle: str) -> None:
    first, second, third = orders(shuffle, seed=7)
    assert sorted(first) == sorted(second) == list(range(20))
    assert len({tuple(first), tuple(second), tuple(third)}) == 3
    assert orders(shuffle, seed=7) == [first, second, third]
    assert orders(shuffle, seed=8)[0] != first
    assert orders(shuffle, range(2, 3), seed=7) == [third], "without the epochs before it"


def test_trials_stay_together_and_both_they_and_their_windows_are_shuffled() -> None:
    for order in orders("trials"):
        trials = [trial for trial, _ in groupby(TRIAL[order].tolist())]
        assert sorted(trials) == [3, 5, 8, 9, 11], "each trial is one stretch"
    assert any([trial for trial, _ in groupby(TRIAL[order].tolist())] != [3, 5, 8, 9, 11] for order in orders("trials"))
    assert any([i for i in order if TRIAL[i] == 8] != list(range(5, 12)) for order in orders("trials"))


def test_windows_leave_their_trials() -> None:
    assert len(list(groupby(TRIAL[orders("windows")[0]].tolist()))) > 5


@pytest.mark.parametrize("shuffle", ["none", "windows", "trials"])
def test_going_on_where_it_was_left(shuffle: Any) -> None:
    order = Order(TRIAL, shuffle, seed=1)
    order.set_epoch(4)
    whole = list(order)
    order.set_epoch(4, start=13)
    assert (len(order), list(order)) == (7, whole[13:])
    order.set_epoch(4, start=20)
    assert (len(order), list(order)) == (0, [])


def test_every_order_comes_up_about_equally_often() -> None:
    """Of three trials six orders; 600 epochs give each 100 on average, with a deviation of 9: 50 is five of them away."""
    order = Order(np.array([0, 1, 2]), "trials")
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(600):
        order.set_epoch(epoch)
        found = tuple(order)
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 6
    assert min(counts.values()) > 50


def test_no_samples() -> None:
    assert list(Order(np.zeros(0, np.int64), "trials")) == []


def test_an_unknown_order() -> None:
    with pytest.raises(TrainerError, match="shuffle: unknown order 'trial': known: none, windows, trials; give one of them"):
        Order(TRIAL, "trial")  # type: ignore[arg-type]
