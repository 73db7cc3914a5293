"""What several systems are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from trainer.errors import Problem, TrainerError
from trainer.layers.masks import RowNorm, zeroed
from trainer.systems.contract import Inputs


def joined(features: Mapping[str, Tensor], names: Iterable[str]) -> Tensor:
    """(B, T, the sum of D) in the order of names."""
    return torch.cat([features[name] for name in names], dim=-1)


class Head(nn.Module):
    """Linear, (batch norm over real rows,) ReLU, dropout, linear. (B, T, dim) -> (B, T, n_out), zero at rows that are not real."""

    def __init__(self, dim: int, hidden: int, n_out: int, *, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, n_out)
        self.norm = RowNorm(hidden) if norm else None
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.first(x)
        if self.norm is not None:
            x = self.norm(x, mask)
        return zeroed(self.last(self.dropout(x.relu())), mask)


class MultipleOf(nn.Module):
    """Features as they are where their number is a multiple of `heads`, which attention needs; else a linear layer to the next one.
    dim: instead, always a linear layer to so many. (B, T, n_in) -> (B, T, self.dim)."""

    def __init__(self, n_in: int, heads: int, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim or -(-n_in // heads) * heads
        self.linear = nn.Linear(n_in, self.dim) if dim or self.dim != n_in else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        # Before the layer too: the gradient of its weights is a product with what it read.
        return x if self.linear is None else zeroed(self.linear(zeroed(x, mask)), mask)


def check_heads(dim: int, heads: int, where: str, fix: str) -> None:
    """Raises TrainerError where attention cannot share so many numbers among its heads."""
    if dim % heads:
        raise TrainerError(Problem(what=f"{dim} numbers for {heads} heads", where=where, why="they must be a multiple", fix=fix))


def require_rows(inputs: Inputs) -> None:
    """Raises TrainerError where one answer for each clip is asked of a system that has none."""
    if inputs.per_trial:
        fix = "train a task with labels per row, or take another system"
        raise TrainerError(Problem(what="the system gives one answer per row", where="model.system", why="labels are per clip", fix=fix))


def positive(**values: float) -> None:
    """For a Params: raises ValueError for the first that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")


def shares(**values: float) -> None:
    """For a Params: raises ValueError for the first that is not in [0, 1)."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name}: expected a share from 0 and below 1, got {value}")


def each_positive(**values: tuple[int, ...]) -> None:
    """For a Params: raises ValueError for the first that is empty or has a number below 1."""
    for name, numbers in values.items():
        if not numbers or min(numbers) < 1:
            raise ValueError(f"{name}: expected one number or more, each from 1, got {list(numbers)}")
