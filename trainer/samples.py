"""Rows of a selection as tensors: one sample, or a batch of them read straight into its place. See `data` for what a sample is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from pipeline.store import StoreError
from trainer.arrays import Int64
from trainer.errors import Problem, TrainerError, named
from trainer.rows import Fill, check_fill, gather, stand_ins
from trainer.selection import Selection
from trainer.standardiser import Standardiser

Sample = dict[str, Any]


class ReadError(TrainerError):
    """A store that could be opened and then could not be read.

    From a worker process torch hands on the class and one text: the worker's traceback, at whose end stands this error's own text. Only
    that is kept.
    """

    def __init__(self, text: str) -> None:
        super().__init__(())
        self.args = (text.rpartition(f"{ReadError.__qualname__}: ")[2].strip(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What a sample is of: rows (R,) int64 of a trial, counted from its first, and what else the sample says."""

    trial: int
    rows: Int64
    also: Mapping[str, int]


class Reader:
    """Reads samples of `length` rows, padded at their end."""

    def __init__(
        self,
        selection: Selection,
        length: int,
        *,
        standardiser: Standardiser | None,
        fill: Fill | Mapping[str, Fill],
        dtype: torch.dtype,
    ) -> None:
        """Raises TrainerError where these do not go with the selection's features."""
        self._selection, self._length, self._dtype = selection, length, dtype
        self._fill = _fills(fill, selection.features)
        self._scale = {name: _scale(name, dim, standardiser) for name, dim in selection.dims.items()} if standardiser else {}
        _check_dtype(dtype, selection, is_scaled=standardiser is not None)

    def one(self, place: Place) -> Sample:
        """Shapes as for one sample."""
        features = {name: values[0] for name, values in self.room(1).items()}
        return {"features": features, **self._filled(place, features)}

    def room(self, n: int) -> dict[str, Tensor]:
        """Memory for the features of n samples, by name (n, T, D)."""
        return {name: torch.empty(n, self._length, dim, dtype=self._dtype) for name, dim in self._selection.dims.items()}

    def batch(self, places: Sequence[Place], features: Mapping[str, Tensor]) -> Sample:
        """Shapes with (B, …) in front. features: (B or more, T, D) each, of which the first B are filled, and are the batch's."""
        parts = [self._filled(place, {name: values[i] for name, values in features.items()}) for i, place in enumerate(places)]
        return {"features": {name: values[: len(places)] for name, values in features.items()}, **default_collate(parts)}

    def _filled(self, place: Place, features: Mapping[str, Tensor]) -> Sample:
        """Fill the features (T, D); returns the rest of the sample."""
        span = self._selection.rows(place.trial)
        rows = span.start + place.rows
        sample: Sample = {
            "feature_valid": {name: self._feature(name, rows, span, out) for name, out in features.items()},
            "rows_valid": torch.arange(self._length) < len(rows),
            "trial": place.trial,
        }
        return {**sample, **self._labels(place.trial, rows), **place.also}

    def _feature(self, name: str, rows: Int64, span: slice, out: Tensor) -> Tensor:
        """Fill out (T, D); returns which rows are valid, (T,) bool."""
        source, real = self._selection.features[name], out[: len(rows)]
        taken, there = stand_ins(source.valid, rows, span, self._fill[name])
        stored = torch.from_numpy(np.empty(0, source.dtype)).dtype
        raw = real if stored == out.dtype else torch.empty(real.shape, dtype=stored)
        try:
            gather(source, taken, raw.numpy())
        except StoreError as error:
            raise ReadError(str(error)) from error
        if name in self._scale:
            mean, factor = self._scale[name]
            raw = raw.float().sub_(mean).mul_(factor)  # of float32 in its place
        if raw.data_ptr() != real.data_ptr():
            real.copy_(raw)  # torch widens float16 ten times as fast as NumPy
        real.numpy()[~there] = 0.0  # torch takes twenty times as long for this
        out[len(rows) :] = 0.0
        return _padded(torch.from_numpy(source.valid[rows]), self._length)

    def _labels(self, trial: int, rows: Int64) -> Sample:
        labels = self._selection.labels
        if labels is None:
            return {}
        at = trial if labels.per_trial else rows
        valid = torch.from_numpy(np.asarray(labels.valid[at]))
        values = torch.where(valid, torch.from_numpy(np.asarray(labels.values[at], np.float32)), 0.0)
        if labels.per_trial:
            return {"labels": values, "label_valid": valid}
        return {"labels": _padded(values, self._length), "label_valid": _padded(valid, self._length)}


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


def _check_dtype(dtype: torch.dtype, selection: Selection, *, is_scaled: bool) -> None:
    """Raises TrainerError for another type than these two, and for one that could not hold the values."""
    if dtype not in (torch.float32, torch.float16):
        why, fix = "samples are torch.float32 or torch.float16", "give one of them"
        raise TrainerError(Problem(what=f"unknown type {dtype}", where="dtype", why=why, fix=fix))
    wide = [name for name, source in selection.features.items() if source.dtype == np.float32]
    if dtype == torch.float16 and wide and not is_scaled:
        why, fix = "they are stored as float32 and may be beyond what float16 holds", "standardise them, or read float32"
        raise TrainerError(Problem(what=f"float16 of {named(wide)}", where="dtype", why=why, fix=fix))
