"""Losses against torch's and torchvision's own on the valid rows alone, against the metrics, and by their gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from trainer import losses
from trainer.metrics import Tally
from trainer.tasks import task_of

unhurried = settings(deadline=None)  # a busy machine is no failure
# float64: sums of some hundred terms.
CLOSE = 1e-10

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
DENSE: dict[str, Loss] = {
    "ccc": losses.ccc_loss,
    "pearson": losses.pearson_loss,
    "mse": losses.mse_loss,
    "bce": losses.bce_loss,
    "bce, weighted": functools.partial(losses.bce_loss, positive_weights=WEIGHTS),
    "focal, binary": losses.binary_focal_loss,
    "focal, binary, alpha": functools.partial(losses.binary_focal_loss, gamma=1.5, alpha=0.3),
}
CLASSES: dict[str, Loss] = {
    "ce": losses.cross_entropy_loss,
    "ce, weighted": functools.partial(losses.cross_entropy_loss, class_weights=WEIGHTS),
    "focal": losses.focal_loss,
    "focal, weighted": functools.partial(losses.focal_loss, gamma=1.0, class_weights=WEIGHTS),
}
ALL = DENSE | CLASSES


def batch(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """3 windows of 7 rows, four columns or four classes, about a third masked."""
    made = torch.Generator().manual_seed(seed)
    pred = torch.randn(3, 7, 4, generator=made, dtype=dtype)
    if name in CLASSES:
        return pred, torch.randint(0, 4, (3, 7), generator=made), torch.rand(3, 7, generator=made) < 0.7
    true = (torch.rand(3, 7, 4, generator=made) < 0.4).to(dtype)
    if name in ("ccc", "pearson", "mse"):
        true = torch.randn(3, 7, 4, generator=made, dtype=dtype)
    return pred, true, torch.rand(3, 7, 4, generator=made) < 0.7


def value_and_gradient(loss: Loss, pred: Tensor, true: Tensor, valid: Tensor) -> tuple[float, Tensor]:
    pred = pred.clone().requires_grad_()
    value = loss(pred, true, valid)
    value.backward()
    assert pred.grad is not None
    return value.item(), pred.grad


def spread(valid: Tensor, like: Tensor) -> Tensor:
    """A mask of the predictions' shape."""
    return valid if valid.shape == like.shape else valid[..., None].expand(like.shape)


@pytest.mark.parametrize("junk", [math.nan, math.inf, -5.0, 1e30])
@pytest.mark.parametrize("name", ALL)
def test_what_is_masked_changes_neither_value_nor_gradient(name: str, junk: float) -> None:
    pred, true, valid = batch(name)
    before, gradient = value_and_gradient(ALL[name], pred, true, valid)
    mask = spread(valid, pred)
    assert not gradient[~mask].any()
    assert gradient[mask].all()
    pred = pred.masked_fill(~mask, junk)
    true = true.masked_fill(~valid, -1 if name in CLASSES else junk)
    after, gradient_after = value_and_gradient(ALL[name], pred, true, valid)
    assert after == before  # to the last digit
    assert torch.equal(gradient_after, gradient)


@pytest.mark.parametrize("junk", [0.0, math.nan])
@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_padding_moves_nothing(name: str, junk: float) -> None:
    pred, true, valid = batch(name)
    value, gradient = value_and_gradient(ALL[name], torch.full_like(pred, junk), true, torch.zeros_like(valid))
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_those_of_the_value(name: str) -> None:
    pred, true, valid = batch(name)
    assert torch.autograd.gradcheck(lambda x: ALL[name](x, true, valid), (pred.requires_grad_(),))


@pytest.mark.parametrize("name", ALL)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    pred, true, valid = batch(name, dtype=torch.float16)
    half = ALL[name](pred, true, valid)
    assert half.dtype == torch.float32
    assert half.item() == ALL[name](pred.float(), true.float() if name in DENSE else true, valid).item()


THEIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": functional.mse_loss,
    "bce": functional.binary_cross_entropy_with_logits,
    "bce, weighted": functools.partial(functional.binary_cross_entropy_with_logits, pos_weight=WEIGHTS),
    "ce": functional.cross_entropy,
    "ce, weighted": functools.partial(functional.cross_entropy, weight=WEIGHTS),
}


@pytest.mark.parametrize("name", ALL)
@unhurried
@given(seed=st.integers(0, 2**31))
def test_masking_is_leaving_out(name: str, seed: int) -> None:
    pred, true, valid = batch(name, seed)
    rows = valid if name in CLASSES else valid[..., 0]
    rows[0, 0] = True
    valid = rows if name in CLASSES else rows[..., None].expand_as(pred)
    masked = ALL[name](pred, true, valid).item()
    kept = pred[rows], true[rows]
    without = ALL[name](*kept, torch.ones(kept[1].shape, dtype=torch.bool)).item()
    assert masked == pytest.approx(without, abs=CLOSE)
    if name in THEIRS:
        assert masked == pytest.approx(THEIRS[name](*kept).item(), abs=CLOSE)


@unhurried
@given(seed=st.integers(0, 2**31))
def test_ccc_and_pearson_are_one_less_the_metric(seed: int) -> None:
    pred, true, valid = batch("ccc", seed)
    valid[0] = True  # every target has rows
    for loss, task in ((losses.ccc_loss, task_of("mine", "abcd")), (losses.pearson_loss, task_of("emi", "abcd"))):
        tally = Tally(task)
        tally.add(*(part.reshape(-1, 4).numpy() for part in (true, pred, valid)))
        assert loss(pred, true, valid).item() == pytest.approx(1 - tally.score().value, abs=CLOSE)


def test_batch_and_time_are_one_axis() -> None:
    pred, true, valid = batch("ccc")
    flat = [part.reshape(1, 21, 4) for part in (pred, true, valid)]
    assert losses.ccc_loss(*flat).item() == losses.ccc_loss(pred, true, valid).item()
    each = torch.stack([losses.ccc_loss(pred[i], true[i], valid[i]) for i in range(3)]).mean()
    assert abs(each.item() - losses.ccc_loss(pred, true, valid).item()) > 0.01  # the mean over windows is something else


def test_a_target_without_rows_is_not_averaged_in() -> None:
    pred, true, valid = batch("ccc")
    valid[..., 2] = False
    kept = [0, 1, 3]
    expected = losses.ccc_loss(pred[..., kept], true[..., kept], valid[..., kept]).item()
    assert losses.ccc_loss(pred, true, valid).item() == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("loss", [losses.ccc_loss, losses.pearson_loss])
def test_a_constant_has_the_loss_of_nought_and_a_finite_gradient(loss: Loss) -> None:
    for dtype in (torch.float32, torch.float64):
        true = torch.linspace(-1, 1, 9, dtype=dtype)[:, None]
        for pred, labels in ((torch.full_like(true, 0.3), true), (true, torch.full_like(true, 0.3)), (torch.zeros_like(true),) * 2):
            value, gradient = value_and_gradient(loss, pred, labels, torch.ones_like(true, dtype=torch.bool))
            assert value == pytest.approx(1.0, abs=1e-6)
            assert torch.isfinite(gradient).all()
    one_row = torch.tensor([[0.5]])
    value, gradient = value_and_gradient(loss, one_row, one_row, torch.tensor([[True]]))
    assert value == pytest.approx(1.0, abs=1e-6)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (0.0, 0.5), (1.5, None), (0.5, 0.9)])
def test_binary_focal_is_torchvisions(gamma: float, alpha: float | None) -> None:
    pred, true, valid = batch("focal, binary")
    theirs = sigmoid_focal_loss(pred, true, alpha=-1 if alpha is None else alpha, gamma=gamma, reduction="none")[valid].mean()
    assert losses.binary_focal_loss(pred, true, valid, gamma=gamma, alpha=alpha).item() == pytest.approx(theirs.item(), abs=CLOSE)


def test_focal_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], dtype=torch.float64))
    got = losses.focal_loss(logits, torch.tensor([0, 1]), torch.tensor([True, True]), gamma=2.0)
    assert got.item() == pytest.approx((-(0.3**2) * math.log(0.7) - 0.7**2 * math.log(0.3)) / 2, abs=1e-12)
    weights = torch.tensor([2.0, 5.0, 1.0])
    weighted = losses.focal_loss(logits, torch.tensor([0, 1]), torch.tensor([True, True]), gamma=2.0, class_weights=weights)
    assert weighted.item() == pytest.approx((-2 * 0.3**2 * math.log(0.7) - 5 * 0.7**2 * math.log(0.3)) / 2, abs=1e-12)


def test_focal_without_focus_is_cross_entropy() -> None:
    pred, true, valid = batch("focal")
    assert losses.focal_loss(pred, true, valid, gamma=0.0).item() == pytest.approx(
        losses.cross_entropy_loss(pred, true, valid).item(), abs=CLOSE
    )
    with pytest.raises(ValueError, match="gamma: expected a number from 0, got -1"):
        losses.focal_loss(pred, true, valid, gamma=-1.0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_finite_where_a_row_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]] * 2)
    value, gradient = value_and_gradient(
        lambda *rows: losses.focal_loss(*rows, gamma=gamma), logits, torch.tensor([0, 2]), torch.tensor([True, True])
    )
    assert value == pytest.approx(200.0)  # the wrong row is off by 400, the right one by nothing
    assert torch.isfinite(gradient).all()
    cells = torch.tensor([[200.0, -200.0]])
    value, gradient = value_and_gradient(
        lambda *rows: losses.binary_focal_loss(*rows, gamma=gamma), cells, torch.tensor([[1.0, 1.0]]), torch.tensor([[True, True]])
    )
    assert value == pytest.approx(100.0)
    assert torch.isfinite(gradient).all()


def test_class_weights_are_scikit_learns_balanced() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice(8, 500, p=[0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.02])
    expected = compute_class_weight("balanced", classes=np.arange(8), y=true)
    # float32 has seven digits
    np.testing.assert_allclose(losses.class_weights(true, np.ones(500, bool), 8).numpy(), expected, rtol=1e-6)
    padded, valid = np.append(true, [7] * 100).astype(float), np.arange(600) < 500
    padded[~valid] = np.nan
    np.testing.assert_allclose(losses.class_weights(padded, valid, 8).numpy(), expected, rtol=1e-6)


def test_weights_of_what_is_absent() -> None:
    weights = losses.class_weights([0, 0, 0, 1], [True] * 4, 3)
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 4 / 3])
    assert losses.class_weights([0, 1], [False, False], 3).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="class_weights: expected classes 0 to 2, got 3"):
        losses.class_weights([3], [True], 3)
    true = np.array([[1, 0, 1, np.nan], [0, 0, 1, np.nan], [0, 0, 1, 1], [0, 0, 1, 0]])
    valid = np.isfinite(true)
    assert losses.positive_weights(true, valid).tolist() == [3.0, 1.0, 1.0, 1.0]


def test_positive_weights_balance_the_two_sides() -> None:
    """With them, the gradient at a logit of 0 is the same for all positive rows together and all negative ones."""
    true = torch.tensor([[1.0]] * 3 + [[0.0]] * 12)
    valid = torch.ones(15, 1, dtype=torch.bool)
    loss = functools.partial(losses.bce_loss, positive_weights=losses.positive_weights(true.numpy(), valid.numpy()))
    _, gradient = value_and_gradient(loss, torch.zeros(15, 1), true, valid)
    assert gradient[:3].sum().item() == pytest.approx(-gradient[3:].sum().item(), rel=1e-6)


def test_other_shapes_say_all_sides() -> None:
    ones = torch.ones(2, 3, 4)
    with pytest.raises(ValueError, match=r"expected one shape, got pred \(2, 3, 4\), true \(2, 3\), valid \(2, 3, 4\)"):
        losses.ccc_loss(ones, ones[..., 0], ones.bool())
    with pytest.raises(ValueError, match=r"expected \(..., K\), \(...\) and \(...\), got logits \(2, 3, 4\), true \(2, 3, 4\)"):
        losses.cross_entropy_loss(ones, ones.long(), ones[..., 0].bool())
