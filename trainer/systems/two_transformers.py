"""Two Transformers, the second on features that were expanded and compressed: the action unit system of Nguyen et al.

Source: Nguyen et al. (ABAW3), section 3.2, equation 8, figure 3 and table 3. T1 takes the features as source and as target. T2 takes as
source what feature expansion and compression makes of them, and as target the features, or T1's output. "A full connected layer" optimises
the expansion directly. Each of the three predicts and has a loss of its own; the fused prediction is theirs together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.layers.expansion import ExpandCompress
from trainer.layers.masks import zeroed
from trainer.layers.transformer import EncoderDecoder
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import MultipleOf, joined, positive, require_rows, shares

SURE = 1e-3  # what a unanimous vote leaves open, so that it is a logit


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoTransformersParams:
    """branches: `t1` is the paper's "only T1". target: of T2. expansion: the paper's k. fuse: the `mean` of the branches' logits, or their
    `vote`: the share of them that say yes. dim: as in `gru_transformer`."""

    branches: Literal["both", "t1"] = "both"
    target: Literal["t1", "features"] = "t1"
    fuse: Literal["mean", "vote"] = "mean"
    expansion: float = 1.5
    layers: int = 3
    heads: int = 8
    feed_forward: int = 1024
    dropout: float = 0.3
    causal: bool = False
    dim: int = 0

    def __post_init__(self) -> None:
        positive(expansion=self.expansion, layers=self.layers, heads=self.heads, feed_forward=self.feed_forward)
        shares(dropout=self.dropout)
        if self.dim % self.heads:
            raise ValueError(f"dim: expected a multiple of {self.heads} heads, got {self.dim}")


class TwoTransformers(nn.Module):
    """Heads `t1`, `t2` and `expanded` beside the final one. One answer per row: raises TrainerError for one per clip."""

    Params = TwoTransformersParams

    def __init__(self, params: TwoTransformersParams, inputs: Inputs) -> None:
        super().__init__()
        require_rows(inputs)
        self.names, self.params = tuple(inputs.dims), params
        self.fitted = MultipleOf(sum(inputs.dims.values()), params.heads, params.dim)
        branches = ("t1",) if params.branches == "t1" else ("t1", "t2", "expanded")
        self.expansion = ExpandCompress(self.fitted.dim, factor=params.expansion) if params.branches == "both" else None
        self.transformers = nn.ModuleDict({name: self._transformer() for name in branches if name != "expanded"})
        self.heads = nn.ModuleDict({name: nn.Linear(self.fitted.dim, inputs.n_outputs) for name in branches})

    def _transformer(self) -> EncoderDecoder:
        params = self.params
        return EncoderDecoder(
            self.fitted.dim,
            layers=params.layers,
            heads=params.heads,
            feed_forward=params.feed_forward,
            dropout=params.dropout,
            causal=params.causal,
        )

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        x = self.fitted(joined(features, self.names), mask)
        hidden = {"t1": self.transformers["t1"](x, x, mask)}
        if self.expansion is not None:
            hidden["expanded"] = self.expansion(x, mask)
            target = hidden["t1"] if self.params.target == "t1" else x
            hidden["t2"] = self.transformers["t2"](hidden["expanded"], target, mask)
        said = {name: self.heads[name](values) for name, values in hidden.items()}
        return {name: zeroed(head, mask) for name, head in {FINAL: self._fused(said), **said}.items()}

    def _fused(self, said: Mapping[str, Tensor]) -> Tensor:
        logits = torch.stack(list(said.values()))
        if self.params.fuse == "mean":
            return logits.mean(dim=0)
        return torch.logit((logits >= 0).float().mean(dim=0), eps=SURE)  # steps have no gradient: the branches' own losses train them
