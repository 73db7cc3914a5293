"""The same stages give the same bits in a process that may use one thread, and in one that may use several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest


def datasets(root: Path) -> dict[str, bytes]:
    """Every dataset of every HDF5 file, by the file's place and its own."""
    found: dict[str, bytes] = {}
    for path in sorted(root.rglob("*.h5")):
        with h5py.File(path) as file:
            place = path.relative_to(root)
            file.visititems(
                lambda name, item, place=place: found.update(
                    {f"{place}/{name}": item[()].tobytes()} if isinstance(item, h5py.Dataset) else {}
                )
            )
    return found


@pytest.mark.slow
def test_stores_and_artifacts_are_the_same(
    full: tuple[Any, Any], sample: Any, default_stages: str, new_desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run had one."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    desk = new_desk(sample.videos, sample.labels, stages=default_stages)
    done = desk.apart("run", "--json")
    assert done.status == full[1].status, done.err
    for place in ("cache", "store"):
        expected, found = datasets(getattr(full[0], place)), datasets(getattr(desk, place))
        assert len(expected) >= 30
        assert found.keys() == expected.keys()
        assert [name for name, data in expected.items() if found[name] != data] == []
