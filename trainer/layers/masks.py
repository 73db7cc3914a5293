"""What is real and what is padding, for every layer in the same way."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def check(x: Tensor, mask: Tensor | None) -> None:
    """Raises ValueError unless x is (B, T, D) and mask (B, T) bool or None."""
    if x.ndim != 3:
        raise ValueError(f"x: expected (B, T, D), got {tuple(x.shape)}")
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"mask: expected {tuple(x.shape[:2])} bool, got {tuple(mask.shape)} {mask.dtype}")


def zeroed(x: Tensor, mask: Tensor | None) -> Tensor:
    """(B, T, …) with zeros at rows that are not real. A product with the mask would keep NaN."""
    return x if mask is None else x.masked_fill(~mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), 0.0)


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T, D) -> (B, D) mean over the real rows; zero where there is none."""
    check(x, mask)
    if mask is None:
        return x.mean(dim=1)
    return zeroed(x, mask).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation of (B, T, D) over all real rows of the batch: padding has no part in the statistics.

    In training one real row has no deviation; then, and where there is none, the running statistics are taken.
    """

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        check(input, mask)
        rows = input.flatten(0, 1) if mask is None else input[mask]
        if self.training and len(rows) < 2:
            done = nn.functional.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        else:
            done = super().forward(rows)
        return done.view_as(input) if mask is None else done.new_zeros(input.shape).index_put((mask,), done)
