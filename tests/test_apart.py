"""Tests of signals and of forked processes, each file in a process of its own: one that other tests have filled with threads, libraries and
handlers of signals is not what a user has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("file", ["apart_stopping.py", "trainer/apart_workers.py"])
def test_in_a_process_of_its_own(file: str) -> None:
    argv = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", str(TESTS / file)]
    done = subprocess.run(argv, cwd=TESTS.parent, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout or "100%" in done.stdout
