"""Sound and sight by recursive joint cross-attention, between recurrent networks: the system of Praveen et al. as their paper has it.

Source: Praveen et al., "Recursive joint attention for audio-visual fusion in regression based emotion recognition", ICASSP 2023, section 3
and figure 1; the switches are those of its table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, cat, nn

from trainer.errors import Problem, TrainerError
from trainer.layers.joint_attention import RecursiveJointAttention
from trainer.layers.masks import masked_mean
from trainer.layers.recurrent import Recurrent
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.parts import Head, joined, positive, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class JointAttentionParams:
    """iterations: the paper's t. u_blstm: a BLSTM on each modality before the attention; j_blstm: one on both after it. hidden: of each
    direction. attention_dropout: of the attention's maps."""

    iterations: int = 2
    u_blstm: bool = True
    j_blstm: bool = True
    hidden: int = 256
    head: int = 128
    dropout: float = 0.0
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        positive(iterations=self.iterations, hidden=self.hidden, head=self.head)
        shares(dropout=self.dropout, attention_dropout=self.attention_dropout)


class JointAttention(nn.Module):
    """Per clip, where asked, of the mean over its real rows. Raises TrainerError where sound or sight is missing."""

    Params = JointAttentionParams

    def __init__(self, params: JointAttentionParams, inputs: Inputs) -> None:
        super().__init__()
        require_both(inputs)
        self.audio_names, self.visual_names = tuple(inputs.audio), tuple(inputs.visual)
        d_audio, d_visual = sum(inputs.audio.values()), sum(inputs.visual.values())
        self.audio_blstm = _blstm(d_audio, params) if params.u_blstm else None
        self.visual_blstm = _blstm(d_visual, params) if params.u_blstm else None
        if params.u_blstm:
            d_audio = d_visual = 2 * params.hidden
        self.attention = RecursiveJointAttention(
            d_audio, d_visual, inputs.rows, iterations=params.iterations, dropout=params.attention_dropout
        )
        self.joint_blstm = _blstm(d_audio + d_visual, params) if params.j_blstm else None
        self.head = Head(2 * params.hidden if params.j_blstm else d_audio + d_visual, params.head, inputs.n_outputs, dropout=params.dropout)
        self.per_trial = inputs.per_trial

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        audio, visual = joined(features, self.audio_names), joined(features, self.visual_names)
        if self.audio_blstm is not None and self.visual_blstm is not None:
            audio, visual = self.audio_blstm(audio, mask), self.visual_blstm(visual, mask)
        joint = cat(self.attention(audio, visual, mask), dim=-1)
        if self.joint_blstm is not None:
            joint = self.joint_blstm(joint, mask)
        if self.per_trial:
            return {FINAL: self.head(masked_mean(joint, mask)[:, None])[:, 0]}
        return {FINAL: self.head(joint, mask)}


def require_both(inputs: Inputs) -> None:
    """Raises TrainerError where there is nothing to fuse."""
    lacking = [kind for kind in ("audio", "visual") if not getattr(inputs, kind)]
    if lacking:
        why, fix = f"it has no {' and no '.join(lacking)} feature", "name some of both kinds, or take another system"
        raise TrainerError(Problem(what="joint attention fuses sound and sight", where="features", why=why, fix=fix))


def _blstm(n_in: int, params: JointAttentionParams) -> Recurrent:
    return Recurrent(n_in, params.hidden, cell="lstm", bidirectional=True)
