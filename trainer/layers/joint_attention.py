"""Recursive joint cross-attention of sound and sight, as its paper's equations have it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.layers.masks import check, zeroed


class JointCrossAttention(nn.Module):
    """One iteration: each modality attends to both together. audio (B, T, d_a), visual (B, T, d_v) -> the same shapes.

    With d = d_a + d_v, J = [X_a; X_v] (T, d), and rows as the first axis of X, on which the equations' shapes fit:
    C = tanh(X^T W_j J / sqrt(d)) (d_m, d), W_j (rows, rows); H = ReLU(X W_c C) (T, d), W_c (d_m, d_m); X_att = H W_h + X, W_h (d, d_m).
    Source: Praveen et al., "Recursive joint attention for audio-visual fusion in regression based emotion recognition", ICASSP 2023,
    section 3C, equations 1 to 4. `rows` is a dimension of W_j, so that T is at most that; fewer are as many padded with zeros.
    The paper does not say how weights begin: Xavier, as in its code. dropout: of C and of H W_h, none in the paper, 0.6 in its code.
    """

    def __init__(self, dim_audio: int, dim_visual: int, rows: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.audio = _Attended(dim_audio, dim_audio + dim_visual, rows, dropout)
        self.visual = _Attended(dim_visual, dim_audio + dim_visual, rows, dropout)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """audio: (B, T, d_a), visual: (B, T, d_v), mask: (B, T) of both."""
        check(audio, mask)
        check(visual, mask)
        audio, visual = zeroed(audio, mask), zeroed(visual, mask)
        joint = torch.cat([audio, visual], dim=2)
        return self.audio(audio, joint), self.visual(visual, joint)


class _Attended(nn.Module):
    """Equations 1 and 3 of one modality; a row of zeros in both inputs has no part in the others, and stays one of zeros."""

    def __init__(self, dim: int, dim_joint: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.w_joint, self.w_correlation, self.w_attention = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape))) for shape in ((rows, rows), (dim, dim), (dim_joint, dim))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, joint: Tensor) -> Tensor:
        n, rows = x.shape[1], len(self.w_joint)
        if n > rows:
            raise ValueError(f"x: expected at most {rows} rows, got {n}")
        correlation = (x.transpose(1, 2) @ self.w_joint[:n, :n] @ joint / math.sqrt(joint.shape[2])).tanh()
        attention = (x @ self.w_correlation @ self.dropout(correlation)).relu()
        added: Tensor = self.dropout(attention @ self.w_attention)
        return x + added


class RecursiveJointAttention(nn.Module):
    """`iterations` of JointCrossAttention, each on what the one before it made, each with weights of its own.

    audio (B, T, d_a), visual (B, T, d_v) -> the same shapes. Source: Praveen et al., ICASSP 2023, section 3C, equations 5 and 6; t = 2.
    """

    def __init__(self, dim_audio: int, dim_visual: int, rows: int, *, iterations: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations: expected 1 or more, got {iterations}")
        self.iterations = nn.ModuleList(JointCrossAttention(dim_audio, dim_visual, rows, dropout=dropout) for _ in range(iterations))

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """audio: (B, T, d_a), visual: (B, T, d_v), mask: (B, T) of both."""
        for attention in self.iterations:
            audio, visual = attention(audio, visual, mask)
        return audio, visual
