"""Transformers over rows: torch's own, with padding that nobody attends to."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.layers.masks import check, zeroed


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the row's number. (B, T, D) -> (B, T, D), any T.

    Source: Vaswani et al., "Attention is all you need", arXiv 1706.03762, section 3.5; so do the ABAW3 codes.
    """

    def __init__(self, dim: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.dropout = dim, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, dim) -> (B, T, dim)."""
        # In float32 whatever x is: in half precision one cannot count to 300 and multiply.
        pair = torch.arange(0, self.dim, 2, device=x.device, dtype=torch.float32)
        angles = torch.arange(x.shape[1], device=x.device)[:, None] * torch.exp(pair * (-math.log(10000.0) / self.dim))
        waves = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, : self.dim]
        return self.dropout(x + waves.to(x.dtype))  # type: ignore[no-any-return]


class TransformerEncoder(nn.Module):
    """torch's encoder, optionally with positions. (B, T, dim) -> (B, T, dim).

    Source: Vaswani et al., arXiv 1706.03762, section 3.1; normalised after each sub-layer as there, or with norm_first before.
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float = 0.1,
        positions: bool = True,
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(dim, heads, feed_forward, dropout, batch_first=True, norm_first=norm_first)
        self.encoder = _encoder(layer, layers, nn.LayerNorm(dim) if norm_first else None)  # else the last sub-layer ends with one
        self.positions = PositionalEncoding(dim, dropout=dropout) if positions else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, dim), mask: (B, T) -> (B, T, dim)."""
        check(x, mask)
        x = zeroed(self.positions(zeroed(x, mask)), mask)
        return zeroed(self.encoder(x, src_key_padding_mask=padding(mask)), mask)


class EncoderDecoder(nn.Module):
    """torch's encoder and decoder on the same rows. source, target: (B, T, dim) -> (B, T, dim).

    Source: Nguyen et al. (ABAW3), section 3.2 and figure 3: T1 takes the features as source and as target, T2 their expansion as source,
    and T1's output as target in the best variant. causal: a row of the target does not see later ones, as in the authors' code.
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int,
        heads: int,
        feed_forward: int,
        dropout: float = 0.1,
        positions: bool = True,
        norm_first: bool = False,
        causal: bool = True,
    ) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(dim, heads, feed_forward, dropout, batch_first=True, norm_first=norm_first)
        encoder = _encoder(layer, layers, nn.LayerNorm(dim))
        self.transformer = nn.Transformer(
            dim, heads, layers, layers, feed_forward, dropout, custom_encoder=encoder, batch_first=True, norm_first=norm_first
        )
        self.positions = PositionalEncoding(dim, dropout=dropout) if positions else nn.Identity()
        self.causal, self.heads = causal, heads

    def forward(self, source: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """source, target: (B, T, dim), mask: (B, T), of both -> (B, T, dim)."""
        check(source, mask)
        check(target, mask)
        source, target = (zeroed(self.positions(zeroed(x, mask)), mask) for x in (source, target))
        n = target.shape[1]
        seen = torch.ones(n, n, dtype=torch.bool, device=target.device)
        own = unseen(seen.tril() if self.causal else seen, mask, self.heads)
        hidden = padding(mask)
        done = self.transformer(source, target, tgt_mask=own, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
        return zeroed(done, mask)


def _encoder(layer: nn.TransformerEncoderLayer, layers: int, norm: nn.LayerNorm | None) -> nn.TransformerEncoder:
    # Nested tensors would cut the output to the longest sequence of the batch.
    encoder = nn.TransformerEncoder(layer, layers, norm, enable_nested_tensor=False)
    for weight in encoder.parameters():
        if weight.ndim > 1:  # torch copies the layer, so that all would begin alike; nn.Transformer does the same against that
            nn.init.xavier_uniform_(weight)
    return encoder


def padding(mask: Tensor | None) -> Tensor | None:
    """(B, T) True at rows that are not attended to. A sequence without real rows attends to its zeros: of no rows the softmax is NaN."""
    return None if mask is None else ~mask & mask.any(dim=1, keepdim=True)


def unseen(seen: Tensor, mask: Tensor | None, heads: int) -> Tensor:
    """What torch's attention calls a mask: True where a row is not attended to; (T, T), or (B * heads, T, T) where some rows are padding.

    seen: (T, T) True where row i may attend to row j. A row that may see itself always does, so that no softmax is of nothing.
    """
    if mask is None:
        return ~seen
    itself = torch.eye(len(seen), dtype=torch.bool, device=seen.device)
    return ~(seen & (mask[:, None, :] | itself)).repeat_interleave(heads, dim=0)
