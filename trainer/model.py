"""One model: a network with all that it needs to read a store and to say something about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.store import Store
from trainer.ahead import Ahead
from trainer.arrays import Floats
from trainer.averaging import Average
from trainer.data import ClipDataset, WindowDataset
from trainer.errors import Problem, TrainerError
from trainer.features import Chosen
from trainer.labels import labels_of
from trainer.loader import BatchLoader
from trainer.objective import Objective
from trainer.order import Order
from trainer.predictions import Predicted
from trainer.recipe import Learner
from trainer.rows import ArrayRows
from trainer.selection import Selection, select
from trainer.standardiser import Standardiser
from trainer.systems import system_class
from trainer.systems.contract import Inputs
from trainer.tasks import Task, task_of

SCORES = "scores"  # the name of an earlier model's


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where to compute: a torch device, and how many processes read (0: a thread of this one)."""

    device: str = "cpu"
    workers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """standardiser: of the trials that the network learnt from, None where features are taken as they are."""

    learner: Learner
    features: Chosen
    objective: Objective
    network: nn.Module
    standardiser: Standardiser | None

    @property
    def task(self) -> Task:
        return self.objective.task

    def dataset(self, selection: Selection, *, labelled_only: bool = False) -> WindowDataset | ClipDataset:
        reading = self.learner.reading
        shared: dict[str, Any] = {"rows": reading.rows, "standardiser": self.standardiser, "fill": reading.fill}
        if reading.per == "clip":
            discard = self.features.visual if reading.discard else ()
            return ClipDataset(selection, longer=reading.longer, discard=discard, **shared)
        return WindowDataset(selection, stride=reading.stride, step=reading.step, labelled_only=labelled_only, **shared)

    def predict(self, selection: Selection, machine: Machine) -> dict[str, Predicted]:
        """Of every selected trial, by name; of windows that overlap the mean. selection: with or without labels, which are not looked at.

        Raises TrainerError where the network says something that is no number.
        """
        data = self.dataset(selection)
        order = Order(data.trial, "none")
        batches = Ahead(BatchLoader(data, order, batch_size=self.learner.training.batch_size, workers=machine.workers), machine.device)
        self.network.eval()
        per_trial = self.learner.reading.per == "clip"
        found: dict[int, Average] = {}
        with torch.inference_mode():
            for batch in batches:
                outputs = self.network(batch["features"], batch["rows_valid"])
                values = self.objective.predictions(outputs).cpu().numpy().astype(np.float64)
                for i, number in enumerate(batch["trial"].tolist()):
                    _require_numbers(values[i], selection.all_trials[number])
                    if per_trial:
                        _add(found, number, 1, 0, values[i : i + 1], np.ones(1, np.int64))
                    else:
                        rows = selection.rows(number)
                        real = int(batch["rows_valid"][i].sum())
                        placed = int(batch["start"][i]) + self.learner.reading.step * np.arange(real)
                        _add_rows(found, number, rows.stop - rows.start, placed, values[i, :real])
        return {selection.all_trials[number]: _predicted(average) for number, average in found.items()}


def _add(found: dict[int, Average], number: int, n_rows: int, start: int, values: Floats, weights: Any) -> None:
    found.setdefault(number, Average(n_rows, values.shape[1])).add(start, values, weights)


def _add_rows(found: dict[int, Average], number: int, n_rows: int, placed: Any, values: Floats) -> None:
    """A window's rows, which may lie some steps apart."""
    first, last = int(placed[0]), int(placed[-1])
    spread, weights = np.zeros((last - first + 1, values.shape[1])), np.zeros(last - first + 1)
    spread[placed - first], weights[placed - first] = values, 1.0
    _add(found, number, n_rows, first, spread, weights)


def _predicted(average: Average) -> Predicted:
    values, valid = average.result()
    return Predicted(values=values, valid=valid)


def _require_numbers(values: Floats, trial: str) -> None:
    if not np.isfinite(values).all():
        fix = "lower training.lr, set training.clip_norm, or look at the features of this trial"
        raise TrainerError(Problem(what="the network says what is no number", where=f"trial {trial}", why="its weights ran away", fix=fix))


def task_for(store: Store, name: str) -> Task:
    """With the columns of the store's labels. Raises TrainerError where the store has none of that task."""
    labels = labels_of(store.index, name)
    return task_of(name, labels.columns if name != "expr" else ())


def selection_for(store: Store, features: Chosen, task: str | None, scores: ArrayRows | None = None) -> Selection:
    """All of the store's trials. Raises as `select`."""
    return select(store, features.names, task=task, more={SCORES: scores} if scores is not None else {})


def inputs_of(dims: Mapping[str, int], features: Chosen, learner: Learner, task: Task) -> Inputs:
    """dims: of all that is read, by name."""
    return Inputs(
        audio={name: dims[name] for name in features.audio},
        visual={name: dims[name] for name in features.visual},
        scores={SCORES: dims[SCORES]} if SCORES in dims else {},
        rows=learner.reading.rows,
        n_outputs=len(task.columns),
        per_trial=learner.reading.per == "clip",
    )


def new_network(learner: Learner, inputs: Inputs) -> nn.Module:
    """With weights as drawn by torch's generator. Raises TrainerError where the system cannot take the inputs."""
    network: nn.Module = system_class(learner.system)(learner.params, inputs)
    return network
