"""The joint attention fusion as its authors released it, which is not quite what their paper says.

Where it differs from `joint_attention`: it does not recur (but `iterations` may be given); keys, queries and values have biases, there is
a tanh and a ReLU more; both modalities are normalised; the visual map is attended to by sound, and its 49 "places" are pieces of 512
consecutive numbers of a channel-major 512 x 7 x 7 map, not places. Described from
https://github.com/praveena2j/RecurrentJointAttentionwithLSTMs (models/orig_cam.py at ea196b3b); tensors have its names, so that its
checkpoints can be loaded. `rows` is a dimension of its weights: T is exactly that.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from trainer.layers.masks import check, zeroed
from trainer.layers.recurrent import run_real_rows

PLACES = 49
HIDDEN = 128  # of the two heads


class ReleasedFusion(nn.Module):
    """audio (B, rows, dim), visual (B, rows, 49 * dim) -> valence (B, rows), arousal (B, rows); no activation at the end."""

    def __init__(self, *, dim: int = 512, rows: int = 16, iterations: int = 1, dropout: float = 0.6, dropout_lstm: float = 0.1) -> None:
        super().__init__()
        self.coattn = _CoAttention(dim, rows, iterations, dropout)
        self.audio_extract = _ResidualBlstm(dim, dim, dropout_lstm)
        self.video_extract = _ResidualBlstm(dim, dim, dropout_lstm)
        self.video_attn = nn.ModuleDict({"attn": _SoundGuidedAttention(dim)})
        self.Joint = _ResidualBlstm(2 * dim, dim, 0.0)
        self.vregressor, self.aregressor = _head(dim, dropout), _head(dim, dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, audio: Tensor, visual: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """audio: (B, rows, dim), visual: (B, rows, 49 * dim), mask: (B, rows) of both. Zero where a row is not real."""
        check(audio, mask)
        check(visual, mask)
        audio, visual = (normalize(zeroed(x, mask), dim=-1) for x in (audio, visual))
        audio = self.audio_extract(audio, mask)
        visual = self.video_extract(self.video_attn["attn"](visual, audio), mask)
        visual, audio = self.coattn(visual, audio, mask)
        joint = self.Joint(torch.cat([visual, audio], dim=-1), mask)
        return zeroed(self.vregressor(joint).squeeze(2), mask), zeroed(self.aregressor(joint).squeeze(2), mask)


def _head(dim: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, 1))


class _ResidualBlstm(nn.Module):
    """A BLSTM of two layers from a learnt state; its input and output side by side, made `dim` by a linear layer, and normalised."""

    def __init__(self, n_in: int, dim: int, dropout: float) -> None:
        super().__init__()
        layers, directions, hidden = 2, 2, dim // 2
        self.init_hidden = nn.Parameter(nn.init.xavier_uniform_(torch.empty(2 * layers * directions, hidden)))  # the states, then the cells
        self.rnn = nn.LSTM(n_in, hidden, layers, batch_first=True, bidirectional=True, dropout=dropout)
        self.dropout, self.linear = nn.Dropout(dropout), nn.Linear(n_in + dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, n_in) -> (B, T, dim)."""
        state, cell = self.init_hidden[:, None].expand(-1, len(x), -1).contiguous().chunk(2)
        done = run_real_rows(self.rnn, x, mask, (state, cell))
        return zeroed(normalize(self.linear(self.dropout(torch.cat([x, done], dim=2))), dim=-1), mask)


class _SoundGuidedAttention(nn.Module):
    """Of each row's pieces a mean, weighted by what is heard there. (B, T, 49 * dim), (B, T, dim) -> (B, T, dim)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.affine_audio, self.affine_video = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.affine_v, self.affine_g = nn.Linear(dim, PLACES, bias=False), nn.Linear(dim, PLACES, bias=False)
        self.affine_h, self.affine_feat = nn.Linear(PLACES, 1, bias=False), nn.Linear(dim, dim)

    def forward(self, visual: Tensor, audio: Tensor) -> Tensor:
        pieces = visual.reshape(*visual.shape[:2], PLACES, -1)
        heard = self.affine_g(self.affine_audio(audio).relu())[..., None]
        scores = self.affine_h((self.affine_v(self.affine_video(pieces).relu()) + heard).tanh()).squeeze(3)
        mean = (scores.softmax(dim=2)[..., None, :] @ pieces).squeeze(2)
        attended: Tensor = self.affine_feat(mean)
        return attended


class _CoAttention(nn.Module):
    """`iterations` of visual, audio (B, rows, dim) -> the same shapes, each with weights of its own."""

    def __init__(self, dim: int, rows: int, iterations: int, dropout: float) -> None:
        super().__init__()
        self.dcn_layers = nn.ModuleList(_CoAttentionLayer(dim, rows, dropout) for _ in range(iterations))

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        for layer in self.dcn_layers:
            visual, audio = layer(visual, audio, mask)
        return visual, audio


class _CoAttentionLayer(nn.Module):
    def __init__(self, dim: int, rows: int, dropout: float) -> None:
        super().__init__()
        names = {"query_linear": 2 * dim, "key1_linear": rows, "key2_linear": rows, "value1_linear": dim, "value2_linear": dim}
        self.dense_coattn = nn.ModuleDict({name: nn.Linear(width, width) for name, width in names.items()})
        self.linears = nn.ModuleList(nn.Sequential(nn.Linear(2 * dim, dim), nn.ReLU(), nn.Dropout(dropout)) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, visual: Tensor, audio: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        visual, audio = zeroed(visual, mask), zeroed(audio, mask)
        query = zeroed(self.dense_coattn["query_linear"](torch.cat([visual, audio], dim=2)), mask)
        return self._attended(visual, query, 1, mask), self._attended(audio, query, 2, mask)

    def _attended(self, x: Tensor, query: Tensor, which: int, mask: Tensor | None) -> Tensor:
        key = self.dense_coattn[f"key{which}_linear"](x.transpose(1, 2))
        scores = self.dropout((key @ query / math.sqrt(query.shape[2])).tanh())
        weighted = (self.dense_coattn[f"value{which}_linear"](x) @ scores).tanh().relu()
        return zeroed(x + self.linears[which - 1](weighted), mask)
