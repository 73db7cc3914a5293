"""What is read of a store: features joined on its row axis, the labels of a task, and the trials to take them from. NumPy only."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pipeline.store import Feature, Labels, Store
from trainer.arrays import Int64
from trainer.errors import Problem, TrainerError, named
from trainer.rows import ArrayRows, RowSource

NOTHING: Mapping[str, ArrayRows] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Some trials of a store, with some of its features and the labels of one task, or of none.

    where: the store's folder, for messages. all_trials, offsets: of the whole store. trials: (K,) int64 the numbers of those that were
    selected, ascending. features: by name, all with the store's N rows. labels: of all trials, selected or not.
    """

    where: str
    all_trials: tuple[str, ...]
    offsets: Int64
    trials: Int64
    features: Mapping[str, RowSource]
    task: str | None
    labels: Labels | None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the selected trials."""
        return tuple(self.all_trials[number] for number in self.trials.tolist())

    @property
    def dims(self) -> dict[str, int]:
        return {name: source.dim for name, source in self.features.items()}

    def rows(self, trial: int) -> slice:
        """Of a trial by its number, on the store's row axis."""
        return slice(int(self.offsets[trial]), int(self.offsets[trial + 1]))

    def of(self, trials: Iterable[str]) -> Selection:
        """The same of other trials, as those of a fold. Raises TrainerError as `select` does."""
        return _checked(dataclasses.replace(self, trials=_numbers(self.where, self.all_trials, trials)))


def select(
    store: Store,
    features: Sequence[str],
    *,
    task: str | None = None,
    trials: Iterable[str] | None = None,
    more: Mapping[str, ArrayRows] = NOTHING,
) -> Selection:
    """trials: names, None for all. more: further features that are in memory, on the same rows; no name twice.

    Raises StoreError where a feature is missing or damaged, and TrainerError for a task or trials that the store does not have, for a
    task without any valid label in the selected trials, for trials without rows, and for a selection of nothing.
    """
    index, where = store.index, str(store.folder)
    opened: dict[str, Feature | ArrayRows] = {name: store.open_feature(name) for name in features}
    n = len(index.times_s)
    if len(opened) + len(more) < len(features) + len(more) or opened.keys() & more.keys():
        raise TrainerError(Problem(what="a feature twice", where=where, why=named([*features, *more]), fix="name each feature once"))
    opened |= more
    if not opened:
        known = ", ".join(store.features) or "none"
        raise TrainerError(Problem(what="no feature was asked for", where=where, why=f"it has: {known}", fix="name some"))
    if wrong := {name: len(source.valid) for name, source in opened.items() if len(source.valid) != n}:
        raise TrainerError(
            Problem(what=f"rows of {named(wrong)}", where=where, why=f"expected {n}, got {wrong}", fix="give the store's rows")
        )
    if task is not None and task not in index.labels:
        known = ", ".join(index.labels) or "none"
        fix = "name another task, or run `affectpipe run` with the labels of this one"
        raise TrainerError(Problem(what=f"no labels of task {task!r}", where=where, why=f"it has: {known}", fix=fix))
    return _checked(
        Selection(
            where=where,
            all_trials=index.trials,
            offsets=index.offsets,
            trials=np.arange(len(index.trials)) if trials is None else _numbers(where, index.trials, trials),
            features=opened,
            task=task,
            labels=index.labels[task] if task is not None else None,
        )
    )


def _numbers(where: str, known: tuple[str, ...], names: Iterable[str]) -> Int64:
    number_of = {name: number for number, name in enumerate(known)}
    wanted = list(names)
    if missing := set(wanted) - number_of.keys():
        why = f"it has {len(known)} others"
        raise TrainerError(Problem(what=f"no trial {named(missing)}", where=where, why=why, fix="see `affectpipe inspect STORE`"))
    if len(wanted) != len(set(wanted)):
        twice = {name for name in wanted if wanted.count(name) > 1}
        raise TrainerError(Problem(what=f"trial {named(twice)} twice", where=where, why="", fix="name each trial once"))
    return np.array(sorted(number_of[name] for name in wanted), np.int64)


def _checked(selection: Selection) -> Selection:
    """Raises TrainerError where there is nothing to read, or nothing to learn from."""
    where, trials, labels = selection.where, selection.trials, selection.labels
    if not (selection.offsets[trials + 1] - selection.offsets[trials]).sum():
        why = f"{len(trials)} trials were selected" + (", without any row" if len(trials) else "")
        raise TrainerError(Problem(what="nothing to read", where=where, why=why, fix="select other trials"))
    if labels is not None:
        rows = [slice(number, number + 1) if labels.per_trial else selection.rows(number) for number in trials.tolist()]
        if not any(labels.valid[mine].any() for mine in rows):
            why = f"none of the {len(trials)} selected trials ({named(selection.names)}) has one"
            fix = "select other trials, or no task to predict"
            raise TrainerError(Problem(what=f"no valid label of task {selection.task!r}", where=where, why=why, fix=fix))
    return selection
