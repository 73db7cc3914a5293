"""What a stage's `root` holds, by the kind that its extractor reads: whether it is usable, and what its trials' bytes are known by."""

from __future__ import annotations

from pathlib import Path

from pipeline import pictures, tables
from pipeline.errors import Problem
from pipeline.graph import Stage
from pipeline.memo import StatMemo
from pipeline.sources import digest_of
from pipeline.trials import Trial


def check(stage: Stage, root: Path) -> Problem | None:
    """What is wrong with it, or None."""
    return tables.check_root(root) if stage.extractor.root_holds == "tables" else pictures.check_root(root)


def digest(stage: Stage, root: Path, trial: Trial, memo: StatMemo) -> str | None:
    """Of all that the stage reads there for the trial; None where it has no table. Raises OSError."""
    if stage.extractor.root_holds == "pictures":
        return pictures.Pictures(root / trial.name).digest(memo)
    table = tables.find_table(root, trial.name, trial.source.name)
    return digest_of(table, memo) if table else None
