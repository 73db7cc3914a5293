"""Shared fixtures: the test material beside the checkout. It is used where it lies and never copied into the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
