"""Reading in other processes: however they are started, and however many there are, the same batches come."""

from __future__ import annotations

import copy
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from trainer.data import ClipDataset, WindowDataset
from trainer.loader import PREFETCH, BatchLoader
from trainer.order import Order
from trainer.samples import ReadError
from trainer.selection import select
from trainer.standardiser import fit_standardiser


@pytest.fixture
def data(made: Any) -> WindowDataset:
    chosen = select(made.open(), ["arcface", "vggish"], task="va")
    return WindowDataset(chosen, rows=64, stride=8, standardiser=fit_standardiser(chosen))


def batches(data: WindowDataset, workers: int, start_method: str | None = None, shuffle: Any = "trials") -> list[Any]:
    loader = DataLoader(
        data,
        batch_size=16,
        sampler=Order(data.trial, shuffle, seed=5),
        num_workers=workers,
        multiprocessing_context=start_method,
    )
    return list(loader)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(torch.equal(a, b))


@pytest.mark.parametrize(("workers", "start_method"), [(1, "fork"), (2, "fork"), (1, "spawn")])
def test_workers_read_what_one_process_reads(data: WindowDataset, workers: int, start_method: str) -> None:
    here = batches(data, 0)  # so that files are open, and were read, when the workers begin
    there = batches(data, workers, start_method)
    assert len(here) == len(there) > 5
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_parent_and_forked_children_read_at_once(data: WindowDataset) -> None:
    """A position in a file that they shared would send each to the other's rows."""
    expected = [data[i] for i in range(len(data))]
    context = multiprocessing.get_context("fork")

    def check() -> None:
        good = all(same_sample(data[i], expected[i]) for _ in range(5) for i in range(len(data)))
        os._exit(0 if good else 1)

    children = [context.Process(target=check) for _ in range(3)]
    for child in children:
        child.start()
    assert all(same_sample(data[i], expected[i]) for _ in range(5) for i in range(len(data)))
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]


def same_sample(a: Any, b: Any) -> bool:
    return all(torch.equal(a["features"][name], b["features"][name]) for name in a["features"]) and torch.equal(a["labels"], b["labels"])


@pytest.mark.parametrize(("workers", "start_method"), [(0, None), (1, "fork"), (2, "fork"), (1, "spawn")])
def test_memory_that_is_used_again_holds_the_same_batches(data: WindowDataset, workers: int, start_method: str | None) -> None:
    order = Order(data.trial, "windows", seed=5)
    loader = BatchLoader(data, order, batch_size=16, workers=workers, start_method=start_method)
    for epoch in range(2 if start_method != "spawn" else 1):
        order.set_epoch(epoch)
        expected = list(DataLoader(data, batch_size=16, sampler=order))
        assert len(loader) == len(expected) > 3 * (PREFETCH + 1), "each worker's memory is used several times"
        n = 0
        for batch, wanted in zip(loader, expected, strict=True):
            assert same(batch, wanted)
            n += len(batch["trial"])
        assert n == len(data)


def test_a_slow_consumer_s_batch_stays_until_the_next_is_asked_for(data: WindowDataset) -> None:
    order = Order(data.trial, "windows")
    expected = list(DataLoader(data, batch_size=4, sampler=order))
    for batch, wanted in zip(BatchLoader(data, order, batch_size=4, workers=2, start_method="fork"), expected, strict=True):
        time.sleep(0.005)  # in which the workers have long read all that they may
        assert same(batch, wanted)


def test_an_epoch_that_is_left_early_does_not_matter(data: WindowDataset) -> None:
    order = Order(data.trial, "trials", seed=1)
    loader = BatchLoader(data, order, batch_size=8, workers=2, start_method="fork", drop_last=True)
    whole = [copy.deepcopy(batch) for batch in loader]
    assert [len(batch["trial"]) for batch in whole] == [8] * (len(data) // 8) == [8] * len(loader)
    early = iter(loader)
    next(early)
    for kept, (again, beside) in zip(whole, zip(loader, loader, strict=True), strict=True):
        assert same(kept, again)
        assert same(kept, beside), "two at once have memory of their own"
    order.set_epoch(0, start=8 * 5)
    assert all(same(a, b) for a, b in zip(loader, whole[5:], strict=True))


def test_clips_in_batches(made: Any) -> None:
    data = ClipDataset(select(made.open(), ["arcface"], task="emi"), rows=50)
    (batch,) = BatchLoader(data, Order(data.trial), batch_size=8)
    assert batch["features"]["arcface"].shape == (5, 50, 7)
    assert same(batch, next(iter(DataLoader(data, batch_size=8))))


def by_sample(data: WindowDataset, workers: int) -> None:
    batches(data, workers, "fork" if workers else None)


def by_batch(data: WindowDataset, workers: int) -> None:
    list(BatchLoader(data, Order(data.trial), batch_size=16, workers=workers))


@pytest.mark.parametrize(("read", "workers"), [(by_sample, 0), (by_sample, 1), (by_batch, 0), (by_batch, 2)])
def test_a_store_that_is_replaced_meanwhile_is_one_clear_error(made: Any, data: WindowDataset, read: Any, workers: int) -> None:
    for feature in data.selection.features.values():
        feature.close()  # type: ignore[attr-defined]  # who has a file open goes on with it
    shutil.copyfile(made.folder / "vggish.h5", made.folder / "new")
    os.replace(made.folder / "new", made.folder / "vggish.h5")
    with pytest.raises(ReadError, match="was replaced") as caught:
        read(data, workers)
    fix = "start again, and let no `run` write to a store that is read"
    where = f"{made.folder}/vggish.h5"
    assert str(caught.value) == f"{where}: was replaced: another file has taken its place since it was opened; {fix}"


def test_orders_reach_the_batches(make_store: Callable[..., Any]) -> None:
    made = make_store({f"t{i}": 40 for i in range(12)})
    data = WindowDataset(select(made.open(), ["vggish"]), rows=10, stride=10)
    together = torch.cat([batch["trial"] for batch in batches(data, 2, "fork", "trials")]).tolist()
    assert all(len(set(together[i : i + 4])) == 1 for i in range(0, 48, 4))
    apart = torch.cat([batch["trial"] for batch in batches(data, 2, "fork", "windows")]).tolist()
    assert apart != together
    assert sorted(apart) == sorted(together)
