"""What a system is trained for, and what its numbers mean: a recipe's loss, for a task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import losses
from trainer.errors import Problem, TrainerError
from trainer.recipe import Loss
from trainer.selection import Selection
from trainer.systems.contract import FINAL, Outputs
from trainer.tasks import Metric, Task

CLASSES, UNITS = ("cross_entropy", "focal"), ("bce", "binary_focal")


class Objective:
    """weights: (K,) of classes or of action units, see `weights_of`, or None."""

    def __init__(self, loss: Loss, task: Task, weights: Tensor | None = None) -> None:
        """Raises TrainerError where the loss is not one for the task."""
        expected = {Metric.MACRO_F1: CLASSES, Metric.BINARY_F1: UNITS}.get(task.metric, ("ccc", "mse", "pearson"))
        if loss.name not in expected:
            why, fix = f"task {task.name!r} takes {' or '.join(expected)}", "change loss.name, or train another task"
            raise TrainerError(Problem(what=f"loss {loss.name!r} does not fit", where="loss.name", why=why, fix=fix))
        self.spec, self.task, self.weights = loss, task, weights

    def loss(self, outputs: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """The sum over the heads. batch: as `trainer.data` makes it, on the outputs' device."""
        return torch.stack([self._head(output, batch["labels"], batch["label_valid"]) for output in outputs.values()]).sum()

    def predictions(self, outputs: Outputs) -> Tensor:
        """(…, D) float32 of the final head: numbers, probabilities of action units, or of classes."""
        final = outputs[FINAL].float()
        if self.spec.name in CLASSES:
            return final.softmax(dim=-1)
        return final.sigmoid() if self.spec.name in UNITS else self._said(final)

    def _head(self, output: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        spec = self.spec
        if spec.name == "cross_entropy":
            return losses.cross_entropy_loss(output, labels[..., 0].long(), valid[..., 0], self.weights)
        if spec.name == "focal":
            return losses.focal_loss(output, labels[..., 0].long(), valid[..., 0], gamma=spec.gamma, class_weights=self.weights)
        if spec.name == "bce":
            return losses.bce_loss(output, labels, valid, self.weights)
        if spec.name == "binary_focal":
            return losses.binary_focal_loss(output, labels, valid, gamma=spec.gamma, alpha=spec.alpha)
        return getattr(losses, f"{spec.name}_loss")(self._said(output), labels, valid)  # type: ignore[no-any-return]

    def _said(self, output: Tensor) -> Tensor:
        if self.spec.output == "tanh":
            return output.tanh()
        return output.sigmoid() if self.spec.output == "sigmoid" else output


def weights_of(loss: Loss, selection: Selection, n_classes: int) -> Tensor | None:
    """By the valid labels of the selected trials, which are to be those one learns from."""
    if loss.weights == "none" or selection.labels is None:
        return None
    labels, numbers = selection.labels, selection.trials.tolist()
    rows = [slice(number, number + 1) if labels.per_trial else selection.rows(number) for number in numbers]
    values, valid = (np.concatenate([part[mine] for mine in rows]) for part in (labels.values, labels.valid))
    if loss.name in CLASSES:
        return losses.class_weights(values[:, 0], valid[:, 0], n_classes)
    return losses.positive_weights(values, valid)
