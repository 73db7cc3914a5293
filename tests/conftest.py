"""Shared fixtures: the test material beside the checkout. It is used where it lies and never copied into the repository."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest_plugins = ["desk", "trainable"]  # what tests of whole commands need
SHARED = Path(__file__).resolve().parents[2] / "shared"


def _material(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        reason = f"the test material {name}/ is not beside this checkout"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, and CI must not skip it")
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def media() -> Path:
    """Real clips."""
    return _material("media")


@pytest.fixture(scope="session")
def parity() -> Path:
    """What the reference implementations compute."""
    return _material("parity")


@dataclass
class Reference:
    """What a reference implementation gave: facts (the fixture's JSON), arrays (its inputs, and its outputs as out_NAME)."""

    folder: Path
    name: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / f"{self.name}.json").read_text()))

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{self.name}.npz") as known:
            return {name: known[name] for name in known.files}

    @cached_property
    def state(self) -> dict[str, np.ndarray]:
        """The pseudo-random weights that it had, under its own names."""
        spec = importlib.util.spec_from_file_location("parity_weights", self.folder / "weights.py")
        assert spec is not None
        assert spec.loader is not None
        rule = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(rule)
        made = rule.state_dict(self.facts["manifest"], self.facts["weights_rule"]["gain"])
        return {key: np.asarray(value) for key, value in made.items()}

    @property
    def tensors(self) -> dict[str, Any]:
        import torch

        return {key: torch.from_numpy(value) for key, value in self.state.items()}

    @property
    def crops(self) -> np.ndarray:
        """The input pictures, (N, H, W, 3)."""
        return np.ascontiguousarray(self.arrays["input"].transpose(0, 2, 3, 1))

    @property
    def limit(self) -> float:
        return float(self.facts["tolerance"]["limit"])

    def error(self, values: np.ndarray, output: str) -> float:
        """The largest difference from the named output, in units of its standard deviation."""
        expected = self.arrays[f"out_{output}"]
        assert values.shape == expected.shape
        return float(np.abs(values - expected).max() / expected.std())


@pytest.fixture(scope="session")
def reference(parity: Path) -> Callable[[str], Reference]:
    """reference(name): of parity/name.json and .npz."""
    return lambda name: Reference(parity, name)
