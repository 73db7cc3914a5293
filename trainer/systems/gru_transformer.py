"""GRU and Transformer side by side, each with a say of its own: the valence-arousal predictor, the first stage of Nguyen et al.

Source: Nguyen et al. (ABAW3), section 3.1 and figure 1: the blocks' outputs side by side give the prediction by one linear layer, and
each block has a linear layer and a loss of its own. The Transformer has an encoder and a decoder ("three for the sub-layer in the decoder
and encoder", section 4.2), both of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, cat, nn

from trainer.layers.masks import zeroed
from trainer.layers.recurrent import Recurrent
from trainer.layers.transformer import EncoderDecoder
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import MultipleOf, joined, positive, require_rows, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class GruTransformerParams:
    """dim: of the Transformer; 0 for the features' own number, or the next multiple of heads."""

    gru_layers: int = 2
    gru_hidden: int = 256
    layers: int = 3
    heads: int = 8
    feed_forward: int = 1024
    dropout: float = 0.3
    causal: bool = False
    dim: int = 0

    def __post_init__(self) -> None:
        positive(gru_layers=self.gru_layers, gru_hidden=self.gru_hidden, layers=self.layers, heads=self.heads)
        positive(feed_forward=self.feed_forward)
        shares(dropout=self.dropout)
        if self.dim % self.heads:
            raise ValueError(f"dim: expected a multiple of {self.heads} heads, got {self.dim}")


class GruTransformer(nn.Module):
    """Heads `gru` and `transformer` beside the final one. One answer per row: raises TrainerError for one per clip."""

    Params = GruTransformerParams

    def __init__(self, params: GruTransformerParams, inputs: Inputs) -> None:
        super().__init__()
        require_rows(inputs)
        self.names, n_in, n_out = tuple(inputs.dims), sum(inputs.dims.values()), inputs.n_outputs
        self.gru = Recurrent(n_in, params.gru_hidden, layers=params.gru_layers, dropout=params.dropout)
        self.fitted = MultipleOf(n_in, params.heads, params.dim)
        self.transformer = EncoderDecoder(
            self.fitted.dim,
            layers=params.layers,
            heads=params.heads,
            feed_forward=params.feed_forward,
            dropout=params.dropout,
            causal=params.causal,
        )
        self.of_gru, self.of_transformer = nn.Linear(self.gru.dim, n_out), nn.Linear(self.fitted.dim, n_out)
        self.of_both = nn.Linear(self.gru.dim + self.fitted.dim, n_out)

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        x = joined(features, self.names)
        recurrent, fitted = self.gru(x, mask), self.fitted(x, mask)
        attended = self.transformer(fitted, fitted, mask)
        heads = {
            FINAL: self.of_both(cat([recurrent, attended], dim=-1)),
            "gru": self.of_gru(recurrent),
            "transformer": self.of_transformer(attended),
        }
        return {name: zeroed(head, mask) for name, head in heads.items()}
