"""The contract between systems and the loop that trains them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from torch import Tensor

FINAL = "final"
Outputs = dict[str, Tensor]  # by head; FINAL is the one that predicts


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a system is to read and to say.

    audio, visual, scores: the numbers per row of each feature, by name, in order; scores are of an earlier model. rows: of a window.
    n_outputs: C. per_trial: one answer for each clip, not for each row. Raises ValueError where there is no feature.
    """

    audio: Mapping[str, int] = field(default_factory=dict)
    visual: Mapping[str, int] = field(default_factory=dict)
    scores: Mapping[str, int] = field(default_factory=dict)
    rows: int
    n_outputs: int
    per_trial: bool = False

    def __post_init__(self) -> None:
        if not self.dims:
            raise ValueError("Inputs: expected one feature or more, got none")

    @property
    def dims(self) -> dict[str, int]:
        return {**self.audio, **self.visual, **self.scores}


class System(Protocol):
    """A torch.nn.Module with these.

    Params: a frozen dataclass, the keys of a recipe's `model`; its __post_init__ raises ValueError("key: expected …, got …").
    __init__(params, inputs): raises TrainerError where the system cannot take such inputs.
    """

    Params: ClassVar[Any]

    def __call__(self, features: Mapping[str, Tensor], mask: Tensor) -> Outputs:
        """features: by name (B, T, D) float32, zero where nothing is known; mask: (B, T), True where a row is real.

        Each head is (B, T, C), or (B, C) where inputs.per_trial: numbers, or logits. Heads other than FINAL are trained on the labels like
        it, and otherwise forgotten. Rows that are not real, whatever they hold, change nothing at the others.
        """
