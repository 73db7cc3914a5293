"""Reading in other processes: however they are started, and however many there are, the same batches come."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from trainer.data import ReadError, WindowDataset
from trainer.order import Order
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


@pytest.mark.parametrize("workers", [0, 2])
def test_a_store_that_is_replaced_meanwhile_is_one_clear_error(made: Any, data: WindowDataset, workers: int) -> None:
    for feature in data.selection.features.values():
        feature.close()  # type: ignore[attr-defined]  # who has a file open goes on with it
    shutil.copyfile(made.folder / "vggish.h5", made.folder / "new")
    os.replace(made.folder / "new", made.folder / "vggish.h5")
    with pytest.raises(ReadError, match="was replaced") as caught:
        batches(data, workers, "fork" if workers else None)
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
