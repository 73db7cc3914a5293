"""How a training went, epoch by epoch: a CSV file, and TensorBoard's."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.store import publish_text
from trainer.errors import Problem, TrainerError

CSV = "log.csv"


class Log:
    """folder: of the training, which holds both. done: epochs of before a run was ended, which are not told again."""

    def __init__(self, folder: Path, done: int) -> None:
        """Raises TrainerError where TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            fix = "pip install 'affectpipe[train]'"
            raise TrainerError(Problem(what="a package is missing", where="affectpipe train", why=str(error), fix=fix)) from error
        self._folder = folder
        # What was written of an epoch that did not come to its end is hidden.
        self._board = SummaryWriter(folder, purge_step=done + 1)

    def epoch(self, history: Sequence[Mapping[str, Any]]) -> None:
        """history: of all epochs so far, the new one last."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in history)
        publish_text(self._folder / CSV, text.getvalue())
        for name, value in history[-1].items():
            if name != "epoch" and value is not None:
                self._board.add_scalar(name, value, history[-1]["epoch"])

    def close(self) -> None:
        self._board.close()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
