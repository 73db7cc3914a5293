"""docs/trainer-data.md: its code runs as it is written, on a store where it says that there is one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "trainer-data.md"


def test_every_block_runs_one_after_the_other(make_store: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stores").mkdir()
    made = make_store(name="stores/demo", valid_share=0.95)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    trained = {name for i, name in enumerate(made.counts) if i % 2 == 0}
    assert set(names["train"].names) == trained
    assert set(names["validation"].names) == made.counts.keys() - trained
    assert len(names["loader"]) == 1
    assert torch.isfinite(names["loss"])
    assert 0.1 < float(names["loss"]) < 10, "labels within 1 of 0, features of deviation 1"
