"""A recipe's loss on a task: which function it is, what the network's numbers become, and where weights come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.store import Labels
from trainer import losses
from trainer.errors import TrainerError
from trainer.objective import Objective, weights_of
from trainer.recipe import Loss
from trainer.rows import ArrayRows
from trainer.selection import Selection
from trainer.systems.contract import FINAL
from trainer.tasks import task_of

VA, EXPR, AU = task_of("va"), task_of("expr"), task_of("au", ("AU1", "AU2", "AU4"))
CLASS_WEIGHTS, UNIT_WEIGHTS = torch.linspace(0.5, 2, 8), torch.tensor([0.5, 1.0, 4.0])


def batch_of(name: str) -> dict[str, Tensor]:
    """Two windows of five rows, some of them without a label, which is then NaN."""
    generator = torch.Generator().manual_seed(1)
    valid = torch.rand(2, 5, {"expr": 1, "au": 3, "va": 2}[name], generator=generator) < 0.7
    drawn = torch.rand(valid.shape, generator=generator)
    labels = {"va": drawn * 2 - 1, "expr": (drawn * 8).floor(), "au": (drawn < 0.4).float()}[name]
    assert not valid.all()
    return {"labels": labels.masked_fill(~valid, torch.nan), "label_valid": valid}


def outputs_of(n: int, heads: tuple[str, ...] = (FINAL,)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {head: torch.randn(2, 5, n, generator=generator) * 2 for head in heads}


Expected = Callable[[Tensor, Tensor, Tensor], Tensor]
ON_VA: dict[str, tuple[Loss, Expected]] = {
    "ccc": (Loss(name="ccc"), losses.ccc_loss),
    "ccc of tanh": (Loss(name="ccc", output="tanh"), lambda x, y, valid: losses.ccc_loss(x.tanh(), y, valid)),
    "mse of a sigmoid": (Loss(name="mse", output="sigmoid"), lambda x, y, valid: losses.mse_loss(x.sigmoid(), y, valid)),
    "mse": (Loss(name="mse"), losses.mse_loss),
    "pearson": (Loss(name="pearson"), losses.pearson_loss),
}
ON_CLASSES: dict[str, tuple[Loss, Tensor | None, Expected]] = {
    "cross entropy": (Loss(name="cross_entropy"), None, losses.cross_entropy_loss),
    "of weights": (
        Loss(name="cross_entropy", weights="balanced"),
        CLASS_WEIGHTS,
        lambda x, y, valid: losses.cross_entropy_loss(x, y, valid, CLASS_WEIGHTS),
    ),
    "focal": (Loss(name="focal", gamma=1.5), None, lambda x, y, valid: losses.focal_loss(x, y, valid, gamma=1.5)),
    "focal of weights": (
        Loss(name="focal", weights="balanced"),
        CLASS_WEIGHTS,
        lambda x, y, valid: losses.focal_loss(x, y, valid, gamma=2.0, class_weights=CLASS_WEIGHTS),
    ),
}
ON_UNITS: dict[str, tuple[Loss, Tensor | None, Expected]] = {
    "bce": (Loss(name="bce"), None, losses.bce_loss),
    "of weights": (Loss(name="bce", weights="balanced"), UNIT_WEIGHTS, lambda x, y, valid: losses.bce_loss(x, y, valid, UNIT_WEIGHTS)),
    "focal": (Loss(name="binary_focal", gamma=1.5), None, lambda x, y, valid: losses.binary_focal_loss(x, y, valid, gamma=1.5)),
    "focal of alpha": (
        Loss(name="binary_focal", alpha=0.25),
        None,
        lambda x, y, valid: losses.binary_focal_loss(x, y, valid, gamma=2.0, alpha=0.25),
    ),
}


@pytest.mark.parametrize(("loss", "expected"), ON_VA.values(), ids=ON_VA.keys())
def test_of_numbers(loss: Loss, expected: Expected) -> None:
    batch, outputs = batch_of("va"), outputs_of(2)
    found = Objective(loss, VA).loss(outputs, batch)
    assert torch.equal(found, expected(outputs[FINAL], batch["labels"], batch["label_valid"]))
    assert found.isfinite()
    assert float(found) > 0


@pytest.mark.parametrize(("loss", "weights", "expected"), ON_CLASSES.values(), ids=ON_CLASSES.keys())
def test_of_classes(loss: Loss, weights: Tensor | None, expected: Expected) -> None:
    """Labels are (…, 1), and NaN where there is none."""
    batch, outputs = batch_of("expr"), outputs_of(8)
    found = Objective(loss, EXPR, weights).loss(outputs, batch)
    classes = batch["labels"][..., 0].nan_to_num(0).long()
    assert torch.equal(found, expected(outputs[FINAL], classes, batch["label_valid"][..., 0]))
    assert float(found) > 0


@pytest.mark.parametrize(("loss", "weights", "expected"), ON_UNITS.values(), ids=ON_UNITS.keys())
def test_of_units(loss: Loss, weights: Tensor | None, expected: Expected) -> None:
    batch, outputs = batch_of("au"), outputs_of(3)
    found = Objective(loss, AU, weights).loss(outputs, batch)
    assert torch.equal(found, expected(outputs[FINAL], batch["labels"], batch["label_valid"]))
    assert float(found) > 0


def test_the_losses_above_differ() -> None:
    """Or a table that names the same function everywhere would pass."""
    by_task: list[tuple[Any, str, int, Any]] = [(VA, "va", 2, ON_VA), (EXPR, "expr", 8, ON_CLASSES), (AU, "au", 3, ON_UNITS)]
    for task, name, n, table in by_task:
        found = [Objective(one[0], task, *one[1:-1]).loss(outputs_of(n), batch_of(name)) for one in table.values()]
        assert len({float(value) for value in found}) == len(table)


def test_every_head_has_its_say() -> None:
    """The sum over heads, of which only the final one predicts."""
    batch, outputs = batch_of("va"), outputs_of(2, (FINAL, "gru", "transformer"))
    objective = Objective(Loss(name="ccc", output="tanh"), VA)
    parts = [losses.ccc_loss(head.tanh(), batch["labels"], batch["label_valid"]) for head in outputs.values()]
    torch.testing.assert_close(objective.loss(outputs, batch), parts[0] + parts[1] + parts[2], rtol=1e-6, atol=0)  # float32
    assert torch.equal(objective.predictions(outputs), outputs[FINAL].tanh())


def test_what_is_predicted() -> None:
    """Probabilities by the textbook's formulas, from float16 too, as float32; 1e-3 is that type's resolution."""
    x = outputs_of(8)[FINAL]
    for given, atol in ((x, 1e-6), (x.half(), 2e-3)):
        exp = np.exp(x.double().numpy())
        known = {
            Loss(name="cross_entropy"): (EXPR, exp / exp.sum(axis=-1, keepdims=True)),
            Loss(name="focal"): (EXPR, exp / exp.sum(axis=-1, keepdims=True)),
            Loss(name="bce"): (task_of("au", tuple("abcdefgh")), exp / (1 + exp)),
            Loss(name="binary_focal"): (task_of("au", tuple("abcdefgh")), exp / (1 + exp)),
            Loss(name="ccc", output="tanh"): (VA, (exp - 1 / exp) / (exp + 1 / exp)),
            Loss(name="mse", output="sigmoid"): (VA, exp / (1 + exp)),
        }
        for loss, (task, expected) in known.items():
            found = Objective(loss, task).predictions({FINAL: given})
            assert found.dtype == torch.float32
            np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=atol)
        linear = Objective(Loss(name="pearson"), VA).predictions({FINAL: given})
        assert torch.equal(linear, given.float())


WRONG = [("va", "bce"), ("va", "cross_entropy"), ("emi", "focal"), ("expr", "ccc"), ("expr", "bce"), ("au", "cross_entropy"), ("au", "mse")]
TAKES = {"va": "ccc or mse or pearson", "emi": "ccc or mse or pearson", "expr": "cross_entropy or focal", "au": "bce or binary_focal"}


@pytest.mark.parametrize(("task", "name"), WRONG)
def test_a_loss_of_another_task(task: str, name: Any) -> None:
    expected = f"^loss.name: loss {name!r} does not fit: task {task!r} takes {TAKES[task]}; change loss.name, or train another task$"
    with pytest.raises(TrainerError, match=expected):
        Objective(Loss(name=name), task_of(task))


def selection_of(values: list[list[float]], offsets: list[int], chosen: list[int], *, per_trial: bool = False) -> Selection:
    """NaN where there is no label."""
    array = np.array(values, np.float32)
    n = offsets[-1]
    return Selection(
        where="store",
        all_trials=tuple(f"t{i}" for i in range(len(offsets) - 1)),
        offsets=np.array(offsets, np.int64),
        trials=np.array(chosen, np.int64),
        features={"x": ArrayRows(values=np.zeros((n, 1), np.float32), valid=np.ones(n, np.bool_))},
        task="any",
        labels=Labels(columns=("c",) * array.shape[1], values=array, valid=np.isfinite(array), per_trial=per_trial),
    )


def test_weights_of_classes_are_of_the_selected_trials_alone() -> None:
    """Of t0 and t2: classes 0, 0, 0, 1 of four rows; n / (K n_k), and a class without a row takes the rarest one's."""
    labels = [[0.0], [0.0], [np.nan], [2.0], [2.0], [2.0], [0.0], [1.0]]
    selection = selection_of(labels, [0, 3, 6, 8], [0, 2])
    found = weights_of(Loss(name="cross_entropy", weights="balanced"), selection, 3)
    assert found is not None
    np.testing.assert_allclose(found.numpy(), [4 / (3 * 3), 4 / (3 * 1), 4 / (3 * 1)], rtol=1e-6)
    focal = weights_of(Loss(name="focal", weights="balanced"), selection, 3)
    assert focal is not None
    assert torch.equal(focal, found)
    other = weights_of(Loss(name="focal", weights="balanced"), selection_of(labels, [0, 3, 6, 8], [0, 1]), 3)
    assert other is not None
    np.testing.assert_allclose(other.numpy(), [5 / (3 * 2), 5 / (3 * 2), 5 / (3 * 3)], rtol=1e-6)


def test_weights_of_units_are_of_the_selected_trials_alone() -> None:
    """Negative over positive rows: of t1, 3 / 1 of the first unit; of the second 1 / 2, a row of it having no label."""
    labels = [[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, np.nan], [0.0, 0.0]]
    found = weights_of(Loss(name="bce", weights="balanced"), selection_of(labels, [0, 2, 6], [1]), 2)
    assert found is not None
    assert found.tolist() == [3.0, 0.5]


def test_weights_of_labels_per_clip() -> None:
    """One row of labels for each trial, whatever rows it has: of t1 to t3 two of one class and one of the other."""
    selection = selection_of([[0.0], [0.0], [0.0], [1.0]], [0, 5, 9, 20, 21], [1, 2, 3], per_trial=True)
    found = weights_of(Loss(name="cross_entropy", weights="balanced"), selection, 2)
    assert found is not None
    assert found.tolist() == [0.75, 1.5]


def test_no_weights() -> None:
    selection = selection_of([[0.0], [1.0]], [0, 2], [0])
    assert weights_of(Loss(name="cross_entropy"), selection, 2) is None
    with pytest.raises(ValueError, match="weights: expected 'none' with binary_focal, as only cross_entropy, focal, bce take weights"):
        Loss(name="binary_focal", weights="balanced")
