"""A store as a PyTorch dataset: windows of trials, or whole clips. See docs/trainer-data.md.

A sample is a dictionary, for T rows, D numbers and C targets:

- `features`: by name, (T, D) float32, or float16 where asked. Zero at padding and, unless they are filled, at rows where the feature is
  not valid.
- `feature_valid`: by name, (T,) bool. A row that was filled is not valid all the same.
- `rows_valid`: (T,) bool, False at padding.
- `labels`: (T, C) float32, or (C,) of a task with labels per trial; zero where not valid. `label_valid`: of the same shape, bool.
- `trial`: the trial's number in the store.

torch's DataLoader and its own collation make batches of them (B in front of every shape); `loader.BatchLoader` does it faster. Nothing here
is drawn by chance, so batches do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer.arrays import Bool, Int64
from trainer.errors import Problem, TrainerError, named
from trainer.rows import Fill
from trainer.samples import Place, Reader, Sample
from trainer.selection import Selection
from trainer.standardiser import Standardiser
from trainer.windows import Windows, cut_windows

Longer = Literal["first", "centre", "spaced"]


class WindowDataset(Dataset[Sample]):
    """Windows of `rows` rows at `stride`, the last one of a trial anchored to its end; shorter trials are padded.

    Samples also have `start`: the window's first row, counted from the trial's first. With a task of labels per trial each window has its
    trial's. Source of the windowing: Zhou et al. (ABAW5), sections 3.4 and 4.1, w = 300, s = 200.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        rows: int = 300,
        stride: int = 200,
        step: int = 1,
        standardiser: Standardiser | None = None,
        fill: Fill | Mapping[str, Fill] = "zero",
        dtype: torch.dtype = torch.float32,
        labelled_only: bool = False,
    ) -> None:
        """step: see `cut_windows`. fill: what stands in for invalid rows, of all features or by name, see `stand_ins`.
        labelled_only: leave out windows without any valid label. Raises TrainerError for numbers and words that make no sense."""
        self.selection = selection
        self._reader = Reader(selection, rows, standardiser=standardiser, fill=fill, dtype=dtype)
        windows = cut_windows(selection.offsets, selection.trials.tolist(), rows=rows, stride=stride, step=step)
        self.windows = windows.where(_labelled(selection, windows)) if labelled_only else windows

    @property
    def trial(self) -> Int64:
        """(W,) int64 of each sample, for `Order`."""
        return self.windows.trial

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> Sample:
        return self._reader.one(self._place(i))

    def room(self, n: int) -> dict[str, Tensor]:
        """Memory for `batch`: by feature (n, rows, D)."""
        return self._reader.room(n)

    def batch(self, indices: Sequence[int], features: Mapping[str, Tensor]) -> Sample:
        """The samples of these indices, as collated; their features in `features`, memory of `room(len(indices))` or more."""
        return self._reader.batch([self._place(i) for i in indices], features)

    def _place(self, i: int) -> Place:
        windows = self.windows
        return Place(trial=int(windows.trial[i]), rows=windows.of(i), also={"start": int(windows.start[i])})


def _labelled(selection: Selection, windows: Windows) -> Bool:
    """(W,) bool which windows have a valid label; all, where there is no task."""
    labels = selection.labels
    if labels is None:
        return np.ones(len(windows), np.bool_)
    if labels.per_trial:
        return np.asarray(labels.valid[windows.trial].any(axis=1))
    first = selection.offsets[windows.trial] + windows.start
    stop = first + windows.step * (windows.real - 1) + 1
    return np.array([labels.valid[a : b : windows.step].any() for a, b in zip(first, stop, strict=True)], np.bool_)


class ClipDataset(Dataset[Sample]):
    """One sample per trial, brought to `rows` rows: for targets per clip.

    Shorter clips are padded. Of longer ones `longer` takes the "first" rows, those in the "centre", or as many "spaced" evenly.
    discard: features without which a row is left out, before that: Yu et al. (ABAW6 EMI), section 3.1, "frames containing detected faces
    are retained, while those without faces are discarded"; T = 300.
    """

    def __init__(
        self,
        selection: Selection,
        *,
        rows: int = 300,
        longer: Longer = "spaced",
        discard: Collection[str] = (),
        standardiser: Standardiser | None = None,
        fill: Fill | Mapping[str, Fill] = "zero",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Raises TrainerError for a task with labels per row, and for numbers and words that make no sense."""
        if rows < 1 or longer not in get_args(Longer):
            why, fix = f"known: {', '.join(get_args(Longer))}", "give one of them, and 1 row or more"
            raise TrainerError(Problem(what=f"rows {rows}, longer {longer!r}", where="clips", why=why, fix=fix))
        if unknown := set(discard) - selection.features.keys():
            why, fix = f"read are {named(selection.features)}", "name features that are read"
            raise TrainerError(Problem(what=f"no feature {named(unknown)}", where="discard", why=why, fix=fix))
        if selection.labels is not None and not selection.labels.per_trial:
            why, fix = "a clip has one target", "read windows, or choose a task with labels per trial"
            raise TrainerError(Problem(what="labels per row", where=f"task {selection.task!r}", why=why, fix=fix))
        self.selection, self._rows, self._longer = selection, rows, longer
        self._discard = [selection.features[name].valid for name in discard]
        self._reader = Reader(selection, rows, standardiser=standardiser, fill=fill, dtype=dtype)

    @property
    def trial(self) -> Int64:
        """(K,) int64 of each sample, for `Order`."""
        return self.selection.trials

    def __len__(self) -> int:
        return len(self.selection.trials)

    def __getitem__(self, i: int) -> Sample:
        return self._reader.one(self._place(i))

    def room(self, n: int) -> dict[str, Tensor]:
        """Memory for `batch`: by feature (n, rows, D)."""
        return self._reader.room(n)

    def batch(self, indices: Sequence[int], features: Mapping[str, Tensor]) -> Sample:
        """The samples of these indices, as collated; their features in `features`, memory of `room(len(indices))` or more."""
        return self._reader.batch([self._place(i) for i in indices], features)

    def _place(self, i: int) -> Place:
        trial = int(self.selection.trials[i])
        span = self.selection.rows(trial)
        kept = np.ones(span.stop - span.start, np.bool_)
        for valid in self._discard:
            kept &= valid[span]
        return Place(trial=trial, rows=_chosen(np.flatnonzero(kept), self._rows, self._longer), also={})


def _chosen(kept: Int64, rows: int, longer: Longer) -> Int64:
    """At most `rows` of the rows in `kept`, in order."""
    n = len(kept)
    if n <= rows or longer == "first":
        return kept[:rows]
    if longer == "centre":
        return kept[(n - rows) // 2 :][:rows]
    return kept[((np.arange(rows) + 0.5) * n / rows).astype(np.int64)]
