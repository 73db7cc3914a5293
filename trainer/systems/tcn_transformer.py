"""A temporal convolutional network per feature, side by side into a Transformer encoder, and a small head.

Sources: Yu et al. (ABAW6 VA), section 3 and figure 1; Zhou et al. (ABAW5), section 3 and figure 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, cat, nn

from trainer.layers.masks import masked_mean
from trainer.layers.tcn import TemporalNet
from trainer.layers.transformer import TransformerEncoder
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import Head, check_heads, each_positive, positive, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class TcnTransformerParams:
    """audio_channels, visual_channels: widths of the blocks of each feature's network; of earlier scores, the visual ones.
    head_norm: batch normalisation between the head's two layers."""

    audio_channels: tuple[int, ...]
    visual_channels: tuple[int, ...]
    kernel: int = 3
    causal: bool = True
    negative_slope: float = 0.0
    tcn_dropout: float = 0.2
    layers: int = 4
    heads: int = 4
    feed_forward: int = 512
    dropout: float = 0.3
    head: int = 128
    head_norm: bool = False

    def __post_init__(self) -> None:
        each_positive(audio_channels=self.audio_channels, visual_channels=self.visual_channels)
        positive(kernel=self.kernel, layers=self.layers, heads=self.heads, feed_forward=self.feed_forward, head=self.head)
        shares(tcn_dropout=self.tcn_dropout, dropout=self.dropout)


class TcnTransformer(nn.Module):
    """Per clip, where asked, of the mean over its real rows."""

    Params = TcnTransformerParams

    def __init__(self, params: TcnTransformerParams, inputs: Inputs) -> None:
        super().__init__()
        channels = {name: params.audio_channels if name in inputs.audio else params.visual_channels for name in inputs.dims}
        self.names = tuple(inputs.dims)
        self.temporal = nn.ModuleList(
            TemporalNet(
                inputs.dims[name],
                channels[name],
                kernel=params.kernel,
                dropout=params.tcn_dropout,
                causal=params.causal,
                negative_slope=params.negative_slope,
            )
            for name in self.names
        )
        dim = sum(channels[name][-1] for name in self.names)
        check_heads(dim, params.heads, "model.heads", "change model.heads, or the last of the channels")
        self.encoder = TransformerEncoder(
            dim, layers=params.layers, heads=params.heads, feed_forward=params.feed_forward, dropout=params.dropout
        )
        self.head = Head(dim, params.head, inputs.n_outputs, dropout=params.dropout, norm=params.head_norm)
        self.per_trial = inputs.per_trial

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        encoded = [net(features[name], mask) for name, net in zip(self.names, self.temporal, strict=True)]
        hidden = self.encoder(cat(encoded, dim=-1), mask)
        if self.per_trial:
            return {FINAL: self.head(masked_mean(hidden, mask)[:, None])[:, 0]}
        return {FINAL: self.head(hidden, mask)}
