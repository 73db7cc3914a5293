"""How `scale.py` prints what it found."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def middle(values: Sequence[float], digits: int = 2) -> str:
    """The median, and where there are several the least and the most."""
    told = f"{statistics.median(values):.{digits}f}"
    return told if len(values) == 1 else f"{told} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    row(*["---"] * len(cells))
