"""The benchmarks still run, and print what they are for."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.sample import write_sample

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def run(name: str, *words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, BENCHMARKS / name, *words],
        cwd=BENCHMARKS.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern!r} is not in:\n{text}"
    return float(found[1])


def test_planning_beside_make() -> None:
    printed = run("plan.py", "--trials", "20", "--runs", "1")
    assert "20 trials x 12 stages, 240 tracks, all cached" in printed
    ours, makes = number(r"affectpipe plan +(\d+\.\d+) s ", printed), number(r"GNU make -q +(\d+\.\d+) s ", printed)
    assert number(r"ratio affectpipe / make: (\d+\.\d+)", printed) > 0
    assert ours > makes, "a process that imports Python packages takes longer than make on so little"
    assert number(r"peak memory of affectpipe plan: (\d+) MB", printed) > 10
    assert number(r"affectpipe --help (\d+\.\d+) s", printed) > 0


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell a process's share of memory")
def test_memory_of_a_run(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "sample", clips=1, seconds=1.0)
    clip = sample.videos / f"{sample.names[0]}.mp4"
    printed = run("memory.py", clip, "--minutes", "0.02", "--min-face-px", "300")
    assert f"{clip.name} repeated: 416x304" in printed
    peak_mb = number(r"peak (\d+) MB", printed)
    held_mb = number(r"all frames at once: (\d+) MB", printed)
    assert peak_mb > 100, "torch alone takes that"
    # 30 frames a second; -stream_loop repeats whole clips, so 1 or 2 seconds of them
    assert round(30 * 416 * 304 * 3 / 2**20) <= held_mb <= round(60 * 416 * 304 * 3 / 2**20)
    assert number(r"ratio (\d+\.\d+)", printed) == pytest.approx(peak_mb / held_mb, rel=0.1)
