"""What a training needs to go on from the end of an epoch, in a file that is whole or not there.

Nothing is kept of random numbers: each epoch's are drawn from a seed that follows from the run's and the epoch's number.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.store import published
from trainer.errors import Problem, TrainerError

FORMAT, FORMAT_VERSION = "affectpipe/checkpoint", 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """epoch: how many are done. state: of the network, the optimiser and so on, by name. best: the best epoch's value, number and weights.
    finished: nothing is left to be done. made_for: what it was trained on, as JSON has it; another one cannot go on from here."""

    epoch: int
    state: dict[str, Any]
    best: dict[str, Any]
    finished: bool
    made_for: dict[str, Any]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Raises the pipeline's PassingError where the disk is full or cannot be written."""
    fields = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
    buffer = io.BytesIO()  # of a full disk torch would say that a position was not the expected one
    torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, **fields}, buffer)
    with published(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_checkpoint(path: Path, device: str = "cpu") -> Checkpoint | None:
    """None where there is none. Tensors and plain values only: nothing in the file can run code.

    Raises TrainerError where it is no such file, or damaged.
    """
    if not path.exists():
        return None
    try:
        _require_whole(path)
        said = torch.load(path, map_location=device, weights_only=True)
        if not isinstance(said, dict) or said.pop("format", None) != FORMAT or said.pop("format_version", None) != FORMAT_VERSION:
            raise ValueError(f"expected format {FORMAT!r}, version {FORMAT_VERSION}")
        return Checkpoint(**said)
    except Exception as error:  # of a file that somebody else made, zipfile and the unpickler raise whatever they come upon
        why = str(error).partition("\n")[0][:200] or type(error).__name__
        fix = "remove it, and what it holds is trained again"
        raise TrainerError(Problem(what="no usable checkpoint", where=str(path), why=why, fix=fix)) from error


def _require_whole(path: Path) -> None:
    """torch does not look at the checksums that it writes, and takes weights as they are."""
    with zipfile.ZipFile(path) as parts:
        if (damaged := parts.testzip()) is not None:
            raise ValueError(f"{damaged} is damaged")
