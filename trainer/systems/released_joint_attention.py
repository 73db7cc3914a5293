"""The joint attention fusion as its authors released it: see `trainer.layers.released_fusion` for where it differs from their paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn, stack

from trainer.errors import Problem, TrainerError
from trainer.layers.released_fusion import PLACES, ReleasedFusion
from trainer.systems.contract import FINAL, Inputs, Outputs
from trainer.systems.joint_attention import require_both
from trainer.systems.parts import joined, positive, shares


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedJointAttentionParams:
    iterations: int = 1
    dropout: float = 0.6
    dropout_lstm: float = 0.1

    def __post_init__(self) -> None:
        positive(iterations=self.iterations)
        shares(dropout=self.dropout, dropout_lstm=self.dropout_lstm)


class ReleasedJointAttention(nn.Module):
    """Of 512 numbers that hear and of a map of 512 x 7 x 7 that sees, valence and arousal per row. Raises TrainerError for other inputs."""

    Params = ReleasedJointAttentionParams

    def __init__(self, params: ReleasedJointAttentionParams, inputs: Inputs) -> None:
        super().__init__()
        require_both(inputs)
        self.audio_names, self.visual_names = tuple(inputs.audio), tuple(inputs.visual)
        dim, places = sum(inputs.audio.values()), sum(inputs.visual.values())
        if places != PLACES * dim or inputs.n_outputs != 2 or inputs.per_trial:
            why = f"expected {dim} numbers that hear, {PLACES} x {dim} that see and 2 targets per row, got {places} and {inputs.n_outputs}"
            fix = "extract the clips with `output: map`, or train praveen_rja"
            raise TrainerError(Problem(what="the released fusion cannot take these", where="features", why=why, fix=fix))
        self.fusion = ReleasedFusion(
            dim=dim, rows=inputs.rows, iterations=params.iterations, dropout=params.dropout, dropout_lstm=params.dropout_lstm
        )

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        said = self.fusion(joined(features, self.audio_names), joined(features, self.visual_names), mask)
        return {FINAL: stack(said, dim=-1)}
