"""A GRU and two layers of local attention: the second stage of Nguyen et al.

Source: Nguyen et al. (ABAW3), section 3.1, equation 7 and figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trainer.layers.local_attention import LocalAttention
from trainer.layers.masks import zeroed
from trainer.layers.recurrent import Recurrent
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import joined, positive, require_rows, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class GruAttentionParams:
    """window: rows before and after that a row attends to. attentions: how many such layers; 0 gives the paper's plain GRU."""

    gru_layers: int = 4
    gru_hidden: int = 256
    attentions: int = 2
    window: int = 16
    heads: int = 4
    dropout: float = 0.0

    def __post_init__(self) -> None:
        positive(gru_layers=self.gru_layers, gru_hidden=self.gru_hidden, heads=self.heads, window=self.window)
        shares(dropout=self.dropout)
        if self.attentions < 0:
            raise ValueError(f"attentions: expected 0 or more, got {self.attentions}")
        if self.gru_hidden % self.heads:
            raise ValueError(f"gru_hidden: expected a multiple of {self.heads} heads, got {self.gru_hidden}")


class GruAttention(nn.Module):
    """One answer per row: raises TrainerError for one per clip."""

    Params = GruAttentionParams

    def __init__(self, params: GruAttentionParams, inputs: Inputs) -> None:
        super().__init__()
        require_rows(inputs)
        self.names = tuple(inputs.dims)
        self.gru = Recurrent(sum(inputs.dims.values()), params.gru_hidden, layers=params.gru_layers, dropout=params.dropout)
        self.attention = nn.ModuleList(
            LocalAttention(self.gru.dim, window=params.window, heads=params.heads, dropout=params.dropout) for _ in range(params.attentions)
        )
        self.head = nn.Linear(self.gru.dim, inputs.n_outputs)

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        hidden = self.gru(joined(features, self.names), mask)
        for attention in self.attention:
            hidden = attention(hidden, mask)
        return {FINAL: zeroed(self.head(hidden), mask)}
