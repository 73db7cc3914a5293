"""Recurrent networks over the real rows of sequences."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trainer.layers.masks import check, zeroed

Cell = Literal["gru", "lstm"]


class Recurrent(nn.Module):
    """torch's GRU or LSTM, in one direction or both. (B, T, n_in) -> (B, T, dim), dim the hidden size, twice that for both directions.

    Rows that are not real are passed over wherever they are: the state goes from one real row to the next, and the backward direction
    starts at the last of them. dropout: between layers. Sources: Nguyen et al. (ABAW3), section 3.1, equations 1 to 5 (GRU); Praveen et
    al. (ICASSP 2023), section 3 (BLSTM).
    """

    def __init__(
        self, n_in: int, hidden: int, *, cell: Cell = "gru", layers: int = 1, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if cell not in get_args(Cell):
            raise ValueError(f"cell: expected one of {', '.join(get_args(Cell))}, got {cell!r}")
        kind = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        between = dropout if layers > 1 else 0.0  # torch warns of dropout that one layer does not have
        self.rnn = kind(n_in, hidden, layers, batch_first=True, bidirectional=bidirectional, dropout=between)
        self.dim = hidden * (2 if bidirectional else 1)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, n_in), mask: (B, T) -> (B, T, dim)."""
        check(x, mask)
        return run_real_rows(self.rnn, x, mask)


def run_real_rows(rnn: nn.RNNBase, x: Tensor, mask: Tensor | None, state: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """The network's output at real rows, zero elsewhere. state: what an LSTM begins with, None for zeros."""
    if mask is None:
        return rnn(x, state)[0]  # type: ignore[no-any-return]
    order = (~mask).int().argsort(dim=1, stable=True)  # the real rows first, in their order
    front = zeroed(x, mask).take_along_dim(order[:, :, None], dim=1)
    lengths = mask.sum(dim=1).clamp(min=1).cpu()  # of a sequence without real rows, one of its zeros
    packed = pack_padded_sequence(front, lengths, batch_first=True, enforce_sorted=False)
    done, _ = pad_packed_sequence(rnn(packed, state)[0], batch_first=True, total_length=x.shape[1])
    back = torch.empty_like(order).scatter_(1, order, torch.arange(x.shape[1], device=x.device).expand_as(order))
    return zeroed(done.take_along_dim(back[:, :, None], dim=1), mask)
