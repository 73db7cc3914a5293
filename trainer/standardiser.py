"""Bringing features to mean 0 and deviation 1, by the valid rows of the trials that one may learn from. NumPy only."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.arrays import Float64
from trainer.errors import Problem, TrainerError
from trainer.rows import RowSource
from trainer.selection import Selection

CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Of n rows: mean (D,) float64, and m2 (D,) float64, the sum of squared differences from it."""

    n: int
    mean: Float64
    m2: Float64

    def joined(self, other: Moments) -> Moments:
        """Of both together. Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
        Stanford CS-TR-79-773, equations 2.1."""
        n = self.n + other.n
        if not n:
            return self
        apart, share = other.mean - self.mean, other.n / n
        return Moments(n=n, mean=self.mean + apart * share, m2=self.m2 + other.m2 + apart**2 * (self.n * share))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standardiser:
    """Per feature mean and std (D,) float64, over n_rows valid rows of the named trials. A column that never changed has std 1."""

    mean: Mapping[str, Float64]
    std: Mapping[str, Float64]
    n_rows: Mapping[str, int]
    trials: tuple[str, ...]

    def save(self, path: Path) -> None:
        """A NumPy archive; it becomes visible whole."""
        arrays = {f"{kind}/{name}": value for kind in ("mean", "std", "n_rows") for name, value in getattr(self, kind).items()}
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        try:
            with temporary.open("wb") as file:
                np.savez(file, **arrays, trials=np.array(self.trials, np.str_))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def load_standardiser(path: Path) -> Standardiser:
    """Raises TrainerError where the file is not one that `save` wrote."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key.partition("/")[::2]: file[key] for key in file}
            mean, std, n_rows = (
                {name: found[kind, name] for kind, name in found if kind == wanted} for wanted in ("mean", "std", "n_rows")
            )
            trials = tuple(found["trials", ""].tolist())
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        fix = "train again, or restore the file"
        raise TrainerError(Problem(what="no standardisation", where=str(path), why=str(error), fix=fix)) from error
    return Standardiser(mean=mean, std=std, n_rows={name: int(value) for name, value in n_rows.items()}, trials=trials)


def measure_trials(selection: Selection) -> dict[str, dict[str, Moments]]:
    """Per feature and trial: the moments of its valid rows. One pass over the data serves any number of folds."""
    return {
        name: {selection.all_trials[number]: _measure(source, selection.rows(number)) for number in selection.trials.tolist()}
        for name, source in selection.features.items()
    }


def fit_standardiser(selection: Selection, measured: Mapping[str, Mapping[str, Moments]] | None = None) -> Standardiser:
    """From the valid rows of the selected trials, and no others. measured: of these trials or more, from `measure_trials`.

    Raises TrainerError for a feature without a valid row there, or with a value that is not finite in one.
    """
    known = measure_trials(selection) if measured is None else measured
    total = {name: _total(name, known[name], selection) for name in selection.features}
    deviation = {name: np.sqrt(moments.m2 / moments.n) for name, moments in total.items()}
    return Standardiser(
        mean={name: moments.mean for name, moments in total.items()},
        std={name: np.where(std > 0, std, 1.0) for name, std in deviation.items()},
        n_rows={name: moments.n for name, moments in total.items()},
        trials=selection.names,
    )


def _measure(source: RowSource, rows: slice) -> Moments:
    found = Moments(n=0, mean=np.zeros(source.dim), m2=np.zeros(source.dim))
    for start in range(rows.start, rows.stop, CHUNK_ROWS):
        stop = min(start + CHUNK_ROWS, rows.stop)
        valid = source.valid[start:stop]
        if not valid.any():
            continue
        raw = np.empty((stop - start, source.dim), source.dtype)
        source.read(start, raw)
        values = raw[valid].astype(np.float64)
        with np.errstate(invalid="ignore"):  # values that are not finite are told of when all is known
            mean = values.mean(axis=0)
            values -= mean
            found = found.joined(Moments(n=len(values), mean=mean, m2=np.einsum("td,td->d", values, values)))
    return found


def _total(name: str, measured: Mapping[str, Moments], selection: Selection) -> Moments:
    first, *others = (measured[trial] for trial in selection.names)
    total = first
    with np.errstate(invalid="ignore"):
        for other in others:
            total = total.joined(other)
    if not total.n:
        why = f"none of the {len(selection.trials)} selected trials has one"
        raise TrainerError(
            Problem(what="no valid row", where=f"feature {name!r}", why=why, fix="leave the feature out, or select other trials")
        )
    if not (np.isfinite(total.mean).all() and np.isfinite(total.m2).all()):
        bad = [trial for trial in selection.names if not np.isfinite(measured[trial].m2).all()]
        why = "a valid row holds a value that is not finite"
        raise TrainerError(Problem(what=f"trial {bad[0]!r} is damaged", where=f"feature {name!r}", why=why, fix="run `affectpipe verify`"))
    return total
