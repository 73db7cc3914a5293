"""Batches read ahead are the loader's, each in memory of its own; an error comes through; leaving early leaves no thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from trainer.ahead import Ahead
from trainer.data import WindowDataset
from trainer.loader import BatchLoader
from trainer.order import Order
from trainer.samples import ReadError
from trainer.selection import select


@pytest.fixture
def loader(made: Any) -> BatchLoader:
    data = WindowDataset(select(made.open(), ["arcface", "vggish"], task="va"), rows=50, stride=50)
    return BatchLoader(data, Order(data.trial, "windows", seed=3), batch_size=4)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "batches ahead"]


def test_the_loader_s_batches(loader: BatchLoader) -> None:
    """All kept until the end: a loader alone would have used their memory again."""
    kept = list(Ahead(loader, "cpu"))
    assert len(kept) == len(loader) > 3
    for batch, expected in zip(kept, loader, strict=True):
        assert batch.keys() == expected.keys()
        assert torch.equal(batch["trial"], expected["trial"])
        for name, values in expected["features"].items():
            assert torch.equal(batch["features"][name], values)
    assert readers() == []


def test_an_error_comes_through(loader: BatchLoader, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Callable[..., Any] = loader.dataset.batch
    calls: list[int] = []

    def fails(*words: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise ReadError("vggish.h5: it ends before its last row")
        return read(*words)

    monkeypatch.setattr(loader.dataset, "batch", fails)
    taken = iter(Ahead(loader, "cpu"))
    next(taken)
    next(taken)
    with pytest.raises(ReadError, match=r"vggish\.h5: it ends before its last row"):
        next(taken)
    assert readers() == []


def test_leaving_early_leaves_no_thread(loader: BatchLoader) -> None:
    taken: Iterator[Any] = iter(Ahead(loader, "cpu"))
    next(taken)
    assert len(readers()) == 1
    taken.close()
    assert readers() == []


def test_waiting_is_counted(loader: BatchLoader) -> None:
    ahead = Ahead(loader, "cpu")
    assert ahead.waited_s == 0.0
    list(ahead)
    assert ahead.waited_s > 0.0
