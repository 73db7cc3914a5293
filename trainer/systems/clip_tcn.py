"""One modality of a clip: a temporal convolutional network, a Transformer where asked, and one answer for the whole clip.

Source: Yu et al. (ABAW6 EMI), sections 3.2 to 3.4. The clip's answer is of the mean over its real rows; the paper does not say how rows
become one. It gives 546 as the dimension of the visual encoder, which four heads cannot share: 546 is the features', and the encoder has
the network's d_model of 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from trainer.layers.masks import masked_mean
from trainer.layers.tcn import TemporalNet
from trainer.layers.transformer import TransformerEncoder
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import Head, check_heads, joined, positive, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipTcnParams:
    """d_model: width of the network's `blocks`, and of the encoder. layers: of the encoder, 0 for none."""

    d_model: int = 128
    blocks: int = 5
    kernel: int = 3
    tcn_dropout: float = 0.2
    layers: int = 0
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.1
    head: int = 128

    def __post_init__(self) -> None:
        positive(d_model=self.d_model, blocks=self.blocks, kernel=self.kernel, heads=self.heads, head=self.head)
        positive(feed_forward=self.feed_forward)
        shares(tcn_dropout=self.tcn_dropout, dropout=self.dropout)
        if self.layers < 0:
            raise ValueError(f"layers: expected 0 or more, got {self.layers}")


class ClipTcn(nn.Module):
    Params = ClipTcnParams

    def __init__(self, params: ClipTcnParams, inputs: Inputs) -> None:
        super().__init__()
        self.names, self.per_trial = tuple(inputs.dims), inputs.per_trial
        dim = params.d_model
        if params.layers:
            check_heads(dim, params.heads, "model.heads", "change model.heads, or model.d_model")
        self.temporal = TemporalNet(
            sum(inputs.dims.values()), [dim] * params.blocks, kernel=params.kernel, dropout=params.tcn_dropout, causal=True
        )
        self.encoder = (
            TransformerEncoder(dim, layers=params.layers, heads=params.heads, feed_forward=params.feed_forward, dropout=params.dropout)
            if params.layers
            else None
        )
        self.head = Head(dim, params.head, inputs.n_outputs, dropout=params.dropout)

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        hidden = self.temporal(joined(features, self.names), mask)
        if self.encoder is not None:
            hidden = self.encoder(hidden, mask)
        if self.per_trial:
            return {FINAL: self.head(masked_mean(hidden, mask)[:, None])[:, 0]}
        return {FINAL: self.head(hidden, mask)}
