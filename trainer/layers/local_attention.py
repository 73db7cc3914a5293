"""Attention to the rows nearby."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.layers.masks import check, zeroed
from trainer.layers.transformer import unseen


class LocalAttention(nn.Module):
    """Each row attends to the rows at most `window` before and after it; a residual and layer normalisation follow.

    (B, T, dim) -> (B, T, dim). causal: only to itself and the rows before. Source: Nguyen et al. (ABAW3), section 3.1, "Local Attention",
    after the sliding window of Beltagy et al., arXiv 2004.05150, section 3.1. The paper gives no window, heads or residual; the residual
    and the norm are those of a Transformer's sub-layer (Vaswani et al., arXiv 1706.03762, section 3.1).
    """

    def __init__(self, dim: int, *, window: int, heads: int = 1, dropout: float = 0.0, causal: bool = False) -> None:
        super().__init__()
        if window < 0:
            raise ValueError(f"window: expected 0 or more, got {window}")
        self.attention = nn.MultiheadAttention(dim, heads, dropout, batch_first=True)
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)
        self.window, self.heads, self.causal = window, heads, causal

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x: (B, T, dim), mask: (B, T) -> (B, T, dim)."""
        check(x, mask)
        x = zeroed(x, mask)
        row = torch.arange(x.shape[1], device=x.device)
        back = row[:, None] - row
        seen = (back <= self.window) & (back >= (0 if self.causal else -self.window))
        found, _ = self.attention(x, x, x, attn_mask=unseen(seen, mask, self.heads), need_weights=False)
        return zeroed(self.norm(x + self.dropout(found)), mask)
