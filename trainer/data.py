"""A store as a PyTorch dataset: windows of trials, or whole clips. See docs/trainer-data.md.

A sample is a dictionary that torch's own collation makes batches of (B in front of every shape), for T rows, D numbers and C targets:

- `features`: by name, (T, D) float32. Zero at padding and, unless they are filled, at rows where the feature is not valid.
- `feature_valid`: by name, (T,) bool. A row that was filled is not valid all the same.
- `rows_valid`: (T,) bool, False at padding.
- `labels`: (T, C) float32, or (C,) of a task with labels per trial; zero where not valid. `label_valid`: of the same shape, bool.
- `trial`: the trial's number in the store.

Nothing here is drawn by chance, so batches do not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.store import StoreError
from trainer.arrays import Bool, Int64
from trainer.errors import Problem, TrainerError, named
from trainer.rows import Fill, check_fill, gather, stand_ins
from trainer.selection import Selection
from trainer.standardiser import Standardiser
from trainer.windows import Windows, cut_windows

Sample = dict[str, Any]
Longer = Literal["first", "centre", "spaced"]


class ReadError(TrainerError):
    """A store that could be opened and then could not be read.

    From a worker process torch hands on the class and one text: the worker's traceback, at whose end stands this error's own text. Only
    that is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(())
        self.args = (text.rpartition(f"{ReadError.__qualname__}: ")[2].strip(),)


class _Reader:
    """Rows of trials as parts of samples."""

    def __init__(self, selection: Selection, standardiser: Standardiser | None, fill: Fill | Mapping[str, Fill]) -> None:
        self.selection = selection
        self._fill = _fills(fill, selection.features)
        self._scale = {name: _scale(name, dim, standardiser) for name, dim in selection.dims.items()} if standardiser else {}

    def read(self, trial: int, rows: Int64, length: int) -> Sample:
        """The given rows of a trial, counted from its first, with padding up to `length`."""
        span = self.selection.rows(trial)
        found = {name: self._feature(name, span.start + rows, span, length) for name in self.selection.features}
        sample: Sample = {
            "features": {name: values for name, (values, _) in found.items()},
            "feature_valid": {name: valid for name, (_, valid) in found.items()},
            "rows_valid": torch.arange(length) < len(rows),
            "trial": trial,
        }
        return sample | self._labels(trial, span.start + rows, length)

    def _feature(self, name: str, rows: Int64, span: slice, length: int) -> tuple[Tensor, Tensor]:
        source, n = self.selection.features[name], len(rows)
        taken, there = stand_ins(source.valid, rows, span, self._fill[name])
        try:
            raw = gather(source, taken)
        except StoreError as error:
            raise ReadError(str(error)) from error
        values = torch.empty(length, source.dim)
        values[:n] = torch.from_numpy(raw)  # torch widens float16 ten times as fast as NumPy
        if name in self._scale:
            mean, factor = self._scale[name]
            values[:n].sub_(mean).mul_(factor)
        values[:n][torch.from_numpy(~there)] = 0.0
        values[n:] = 0.0
        return values, _padded(torch.from_numpy(source.valid[rows]), length)

    def _labels(self, trial: int, rows: Int64, length: int) -> Sample:
        labels = self.selection.labels
        if labels is None:
            return {}
        at = trial if labels.per_trial else rows
        valid = torch.from_numpy(np.asarray(labels.valid[at]))
        values = torch.where(valid, torch.from_numpy(np.asarray(labels.values[at], np.float32)), 0.0)
        if labels.per_trial:
            return {"labels": values, "label_valid": valid}
        return {"labels": _padded(values, length), "label_valid": _padded(valid, length)}


def _fills(fill: Fill | Mapping[str, Fill], names: Collection[str]) -> dict[str, Fill]:
    """Of every feature. Raises TrainerError for an unknown policy or feature."""
    given = dict.fromkeys(names, fill) if isinstance(fill, str) else dict(fill)
    if unknown := given.keys() - set(names):
        fix = "name features that are read"
        raise TrainerError(Problem(what=f"no feature {named(unknown)}", where="fill", why=f"read are {named(names)}", fix=fix))
    for policy in given.values():
        check_fill(policy)
    zero: Fill = "zero"
    return dict.fromkeys(names, zero) | given


def _scale(name: str, dim: int, standardiser: Standardiser) -> tuple[Tensor, Tensor]:
    """mean and 1 / std, (D,) float32. Raises TrainerError where the standardisation is of other features."""
    mean = standardiser.mean.get(name)
    if mean is None or mean.shape != (dim,):
        why = f"it is of {named(standardiser.mean)}" if mean is None else f"it is of {len(mean)} numbers, the feature has {dim}"
        fix = "fit it to this store's features"
        raise TrainerError(Problem(what="no standardisation", where=f"feature {name!r}", why=why, fix=fix))
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy((1 / standardiser.std[name]).astype(np.float32))


def _padded(values: Tensor, length: int) -> Tensor:
    """(n, …) -> (length, …), zeros or False behind."""
    out = values.new_zeros((length, *values.shape[1:]))
    out[: len(values)] = values
    return out


class WindowDataset(Dataset[Sample]):
    """Windows of `rows` rows at `stride`, the last one of a trial anchored to its end; shorter trials are padded.

    Samples also have `start`: the window's first row, counted from the trial's first. With a task of labels per trial each window has its
    trial's. Source of the windowing: Zhou et al. (ABAW5), section 3.5, w = 300, s = 200.
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
        labelled_only: bool = False,
    ) -> None:
        """step: see `cut_windows`. fill: what stands in for invalid rows, of all features or by name, see `stand_ins`.
        labelled_only: leave out windows without any valid label. Raises TrainerError for numbers and words that make no sense."""
        self.selection = selection
        self._reader = _Reader(selection, standardiser, fill)
        windows = cut_windows(selection.offsets, selection.trials.tolist(), rows=rows, stride=stride, step=step)
        self.windows = windows.where(_labelled(selection, windows)) if labelled_only else windows

    @property
    def trial(self) -> Int64:
        """(W,) int64 of each sample, for `Order`."""
        return self.windows.trial

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, i: int) -> Sample:
        trial = int(self.windows.trial[i])
        return self._reader.read(trial, self.windows.of(i), self.windows.rows) | {"start": int(self.windows.start[i])}


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
        self._reader = _Reader(selection, standardiser, fill)

    @property
    def trial(self) -> Int64:
        """(K,) int64 of each sample, for `Order`."""
        return self.selection.trials

    def __len__(self) -> int:
        return len(self.selection.trials)

    def __getitem__(self, i: int) -> Sample:
        trial = int(self.selection.trials[i])
        span = self.selection.rows(trial)
        kept = np.ones(span.stop - span.start, np.bool_)
        for valid in self._discard:
            kept &= valid[span]
        return self._reader.read(trial, _chosen(np.flatnonzero(kept), self._rows, self._longer), self._rows)


def _chosen(kept: Int64, rows: int, longer: Longer) -> Int64:
    """At most `rows` of the rows in `kept`, in order."""
    n = len(kept)
    if n <= rows or longer == "first":
        return kept[:rows]
    if longer == "centre":
        return kept[(n - rows) // 2 :][:rows]
    return kept[((np.arange(rows) + 0.5) * n / rows).astype(np.int64)]
