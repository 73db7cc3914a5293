"""Losses over masked rows, batch and time taken as one axis.

All take predictions, labels and `valid`, a mask of the labels' shape. What is not valid changes neither value nor gradient, whatever it
holds, NaN included: it is replaced before anything is computed, and its own gradient is 0. Where nothing is valid the loss is 0, with a
gradient of 0: a batch of padding moves no weight. Half precision is computed in float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

_TINY = 1e-8  # below every variance that matters; keeps the gradient of a constant prediction finite


def ccc_loss(pred: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """1 - CCC, the mean over the targets that have a valid row. pred, true, valid: (..., C).

    Of population moments over all valid rows of the batch, as the metric: Lin, Biometrics 45 (1989) 255. For the sum of papers multiply
    by C. A batch's CCC is not the data set's.
    """
    pred, true, weight = _rows(pred, true, valid)
    n = weight.sum(0).clamp_min(1)
    mean_pred, mean_true = pred.sum(0) / n, true.sum(0) / n
    off_pred, off_true = (pred - mean_pred) * weight, (true - mean_true) * weight
    product = (off_pred * off_true).sum(0) / n
    below = (off_pred**2).sum(0) / n + (off_true**2).sum(0) / n + (mean_pred - mean_true) ** 2
    return _mean_of_targets(1 - 2 * product / below.clamp_min(_TINY), weight)


def pearson_loss(pred: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """1 - Pearson's correlation over all valid rows of the batch, the mean over the targets that have one. pred, true, valid: (..., C)."""
    pred, true, weight = _rows(pred, true, valid)
    n = weight.sum(0).clamp_min(1)
    off_pred, off_true = (pred - pred.sum(0) / n) * weight, (true - true.sum(0) / n) * weight
    product = (off_pred * off_true).sum(0) / n
    spread_pred, spread_true = (off_pred**2).sum(0) / n, (off_true**2).sum(0) / n
    below = spread_pred.clamp_min(_TINY).sqrt() * spread_true.clamp_min(_TINY).sqrt()
    return _mean_of_targets(1 - product / below, weight)


def mse_loss(pred: Tensor, true: Tensor, valid: Tensor) -> Tensor:
    """Mean squared error over all valid cells. pred, true, valid: (..., C)."""
    pred, true, weight = _rows(pred, true, valid)
    return ((pred - true) ** 2).sum() / weight.sum().clamp_min(1)


def cross_entropy_loss(logits: Tensor, true: Tensor, valid: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy. logits: (..., K); true: (...) int64 class numbers; valid: (...). class_weights: (K,).

    The mean over valid rows, weighted by their classes' weights as torch.nn.CrossEntropyLoss does.
    """
    logits, true, weight = _classes(logits, true, valid)
    losses = functional.cross_entropy(logits, true, weight=_like(class_weights, logits), reduction="none")
    if class_weights is not None:
        weight = weight * class_weights.to(weight)[true]
    return (losses * (weight > 0)).sum() / _nonzero(weight.sum())


def focal_loss(logits: Tensor, true: Tensor, valid: Tensor, *, gamma: float = 2.0, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of which the likely rows count little: (1 - p)^gamma of it, p being the true class's probability.

    Shapes and class_weights (the paper's alpha) as in `cross_entropy_loss`; the mean over valid rows, not weighted itself.
    Lin et al., ICCV 2017, arXiv 1708.02002, equations 4 and 5.
    """
    logits, true, weight = _classes(logits, true, valid)
    log_p = functional.log_softmax(logits, dim=-1).gather(-1, true[:, None])[:, 0]
    losses = -_unlikely(log_p, gamma) * log_p
    if class_weights is not None:
        losses = losses * class_weights.to(losses)[true]
    return (losses * weight).sum() / weight.sum().clamp_min(1)


def bce_loss(logits: Tensor, true: Tensor, valid: Tensor, positive_weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy with logits over all valid cells. logits, true (0 or 1), valid: (..., C). positive_weights: (C,)."""
    logits, true, weight = _rows(logits, true, valid)
    losses = functional.binary_cross_entropy_with_logits(logits, true, pos_weight=_like(positive_weights, logits), reduction="none")
    return (losses * weight).sum() / weight.sum().clamp_min(1)


def binary_focal_loss(logits: Tensor, true: Tensor, valid: Tensor, *, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """The focal loss of yes-or-no labels over all valid cells. logits, true (0 or 1), valid: (..., C).

    alpha: the weight of a positive cell, 1 - alpha that of a negative one (the paper's 0.25); none where left out.
    """
    logits, true, weight = _rows(logits, true, valid)
    log_p = functional.logsigmoid(torch.where(true > 0.5, logits, -logits))
    losses = -_unlikely(log_p, gamma) * log_p
    if alpha is not None:
        losses = losses * (alpha * true + (1 - alpha) * (1 - true))
    return (losses * weight).sum() / weight.sum().clamp_min(1)


def class_weights(true: npt.ArrayLike, valid: npt.ArrayLike, n_classes: int) -> Tensor:
    """(K,) float32: rows / (K * rows of the class), scikit-learn's `balanced`, over the valid rows of the training labels.

    true: class numbers, any shape; valid: the same. A class without a row gets the weight of the rarest that has one: it cannot matter
    in training, and must not be infinite. Without any row all are 1.
    """
    kept = np.asarray(true, np.float64)[np.asarray(valid, np.bool_)].astype(np.int64)
    counts = np.bincount(kept, minlength=n_classes)
    if len(counts) > n_classes:
        raise ValueError(f"class_weights: expected classes 0 to {n_classes - 1}, got {len(counts) - 1}")
    if not len(kept):
        return torch.ones(n_classes)
    rarest = counts[counts > 0].min()
    return torch.tensor(len(kept) / (n_classes * np.where(counts > 0, counts, rarest)), dtype=torch.float32)


def positive_weights(true: npt.ArrayLike, valid: npt.ArrayLike) -> Tensor:
    """(C,) float32: negative over positive rows of each column, over its valid rows of the training labels. true, valid: (N, C).

    1 for a column that has no positive or no negative row.
    """
    valid = np.asarray(valid, np.bool_)
    is_true = (np.asarray(true) == 1) & valid
    positive, negative = is_true.sum(axis=0), (valid & ~is_true).sum(axis=0)
    usable = (positive > 0) & (negative > 0)
    return torch.tensor(np.where(usable, negative / np.where(usable, positive, 1), 1.0), dtype=torch.float32)


def _rows(pred: Tensor, true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, C) each, float32 or float64, 0 where not valid; the mask as 0 and 1."""
    if not pred.shape == true.shape == valid.shape:
        raise ValueError(f"a loss: expected one shape, got pred {tuple(pred.shape)}, true {tuple(true.shape)}, valid {tuple(valid.shape)}")
    dtype = torch.promote_types(pred.dtype, torch.float32)
    columns = pred.shape[-1]
    is_valid = valid.reshape(-1, columns).bool()
    pred, true = pred.reshape(-1, columns).to(dtype), true.reshape(-1, columns).to(dtype)
    return pred.masked_fill(~is_valid, 0.0), true.masked_fill(~is_valid, 0.0), is_valid.to(dtype)


def _classes(logits: Tensor, true: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R, K) and (R,) each; logits and class 0 where not valid; the mask as 0 and 1."""
    if not logits.shape[:-1] == true.shape == valid.shape:
        found = f"logits {tuple(logits.shape)}, true {tuple(true.shape)}, valid {tuple(valid.shape)}"
        raise ValueError(f"a loss over classes: expected (..., K), (...) and (...), got {found}")
    dtype = torch.promote_types(logits.dtype, torch.float32)
    is_valid = valid.reshape(-1).bool()
    logits = logits.reshape(-1, logits.shape[-1]).to(dtype).masked_fill(~is_valid[:, None], 0.0)
    return logits, true.reshape(-1).masked_fill(~is_valid, 0).long(), is_valid.to(dtype)


def _unlikely(log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma. Held off 0, where a power below 1 has no gradient."""
    if gamma < 0:
        raise ValueError(f"gamma: expected a number from 0, got {gamma}")
    return (-torch.expm1(log_p)).clamp_min(_TINY) ** gamma


def _mean_of_targets(losses: Tensor, weight: Tensor) -> Tensor:
    has_rows = (weight.sum(0) > 0).to(losses.dtype)
    return (losses * has_rows).sum() / has_rows.sum().clamp_min(1)


def _like(weights: Tensor | None, other: Tensor) -> Tensor | None:
    return None if weights is None else weights.to(other)


def _nonzero(total: Tensor) -> Tensor:
    return torch.where(total > 0, total, torch.ones_like(total))
