"""Temporal convolutional networks: dilated convolutions over rows, causal or centred."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from trainer.layers.masks import check, zeroed


class TemporalBlock(nn.Module):
    """Two weight-normalised dilated convolutions, each with its activation and dropout, and a residual.

    (B, T, n_in) -> (B, T, n_out); row t sees `kernel` rows up to itself, `dilation` apart, or centred on itself (of an even number, one
    more before than after). The residual is a 1x1 convolution where n_in is not n_out. negative_slope 0 is ReLU, as published by
    locuslab; 0.01 is the leaky one of the ABAW3 code (sucv).

    Source: Bai, Kolter, Koltun, "An empirical evaluation of generic convolutional and recurrent networks for sequence modeling",
    arXiv 1803.01271, section 3.3 and figure 1b. The initialisation is torch's: both codes' own is lost at the first forward, which
    computes the weight anew from its norm and direction.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        kernel: int,
        dilation: int = 1,
        dropout: float = 0.2,
        causal: bool = True,
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = weight_norm(nn.Conv1d(n_in, n_out, kernel, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(n_out, n_out, kernel, dilation=dilation))
        self.downsample = nn.Conv1d(n_in, n_out, 1) if n_in != n_out else None
        self.activation: nn.Module = nn.LeakyReLU(negative_slope) if negative_slope else nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        reach = (kernel - 1) * dilation
        after = 0 if causal else (kernel - 1) // 2 * dilation
        self.pad = nn.ConstantPad1d((reach - after, after), 0.0)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, n_in), mask: (B, T) -> (B, T, n_out)."""
        check(x, mask)
        x = zeroed(x, mask)
        hidden = self._convolved(self.conv1, x)
        hidden = self._convolved(self.conv2, zeroed(hidden, mask))  # a bias made padding of the first one's output something else than zero
        residual = x if self.downsample is None else self.downsample(x.transpose(1, 2)).transpose(1, 2)
        return zeroed(self.activation(hidden + residual), mask)

    def _convolved(self, convolution: nn.Module, x: Tensor) -> Tensor:
        done: Tensor = self.dropout(self.activation(convolution(self.pad(x.transpose(1, 2)))))
        return done.transpose(1, 2)


class TemporalNet(nn.Module):
    """TemporalBlocks one after the other, of dilation 1, 2, 4, …

    (B, T, n_in) -> (B, T, channels[-1]); causal, row t sees the 1 + 2 (kernel - 1) (2^len(channels) - 1) rows up to itself.
    Source: Bai et al., arXiv 1803.01271, section 3. ABAW3's (sucv): channels (64, 64, 32, 32) of VGGish and (256, 256, 128, 128) of 512
    visual numbers, kernel 5, dropout 0.1, negative_slope 0.01.
    """

    def __init__(
        self,
        n_in: int,
        channels: Sequence[int],
        *,
        kernel: int,
        dropout: float = 0.2,
        causal: bool = True,
        negative_slope: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [n_in, *channels]
        self.dim = widths[-1]
        self.network = nn.ModuleList(
            TemporalBlock(
                widths[level],
                widths[level + 1],
                kernel=kernel,
                dilation=2**level,
                dropout=dropout,
                causal=causal,
                negative_slope=negative_slope,
            )
            for level in range(len(channels))
        )

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, n_in), mask: (B, T) -> (B, T, channels[-1])."""
        for block in self.network:
            x = block(x, mask)
        return x
