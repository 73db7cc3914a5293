"""Batches read by worker processes into memory that is used again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler, get_worker_info

from trainer.data import ClipDataset, WindowDataset
from trainer.order import Order
from trainer.samples import ReadError, Sample

PREFETCH = 2  # batches that torch lets each worker have ready


class BatchLoader:
    """A dataset's batches in an order; an epoch each time it is iterated over.

    **A batch's features are good until the next batch is asked for**: then their memory is another batch's. Whoever keeps them copies
    them, as moving them to a GPU does. That is what makes it faster than a DataLoader of samples, whose workers spend most of their time
    on the system's giving them new shared memory for every batch. The batches are the same, bit for bit, with any number of workers.
    """

    def __init__(
        self,
        dataset: WindowDataset | ClipDataset,
        order: Sampler[int] | Order,
        *,
        batch_size: int,
        workers: int = 0,
        drop_last: bool = False,
        start_method: str | None = None,
    ) -> None:
        """drop_last: leave out a last batch of fewer samples. start_method: of worker processes, None for the system's usual."""
        self.dataset, self.workers, self._start_method = dataset, workers, start_method
        self._batches = BatchSampler(order, batch_size, drop_last)

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Sample]:
        slots = _Slots(self.dataset, self._batches.batch_size, self.workers)
        loader = DataLoader(
            _Filled(self.dataset, slots),
            batch_size=None,  # torch's way of saying that an item is a batch
            sampler=self._batches,
            num_workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            multiprocessing_context=self._start_method if self.workers else None,
        )
        for found in loader:
            if isinstance(found, ReadError):
                raise found
            slot, n, rest = found
            yield {"features": {name: values[:n] for name, values in slots.memory[slot].items()}, **rest}
            slots.taken[slot] = False


class _Slots:
    """Memory for batches, some of it each worker's own. taken: (slots,) bool, shared with the workers as the memory is.

    A worker has at most PREFETCH batches under way or waiting, and one of its may be in use, so that one of PREFETCH + 1 is free.
    """

    def __init__(self, dataset: WindowDataset | ClipDataset, batch_size: int, workers: int) -> None:
        self.each = PREFETCH + 1 if workers else 1
        self.memory = [dataset.room(batch_size) for _ in range(self.each * max(workers, 1))]
        self.taken = torch.zeros(len(self.memory), dtype=torch.bool)
        if workers:
            shared: list[Tensor] = [self.taken, *(values for features in self.memory for values in features.values())]
            for values in shared:
                values.share_memory_()  # type: ignore[no-untyped-call]

    def take(self, worker: int) -> int:
        """The number of a free one of this worker's."""
        mine = range(worker * self.each, (worker + 1) * self.each)
        slot = next((slot for slot in mine if not self.taken[slot]), None)
        assert slot is not None, "torch lets a worker have more batches than PREFETCH under way"
        self.taken[slot] = True
        return slot


class _Filled(Dataset[tuple[int, int, Mapping[str, Any]] | ReadError]):
    """By the indices of a batch's samples: the slot with its features, how many samples it has, and the rest of the batch.

    An error is handed over as a value: after one that is raised in a worker torch takes five seconds to end each of them.
    """

    def __init__(self, dataset: WindowDataset | ClipDataset, slots: _Slots) -> None:
        self.dataset, self.slots = dataset, slots

    def __getitem__(self, indices: Sequence[int]) -> tuple[int, int, Mapping[str, Any]] | ReadError:
        info = get_worker_info()
        slot = self.slots.take(info.id if info is not None else 0)
        try:
            batch = self.dataset.batch(indices, self.slots.memory[slot])
        except ReadError as error:
            return error
        return slot, len(indices), {name: part for name, part in batch.items() if name != "features"}
