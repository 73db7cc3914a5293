"""`run --on slurm` on a real SLURM: the same store as inline, whatever becomes of the jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

PROFILES = """version: 1
slurm:
  main: {queue: main, cores: 1, memory: 2GB, walltime: "00:10:00", max_jobs: 2, interface: lo}
"""


def test_the_same_store_as_inline(
    slurm: Any, some_clips: Callable[..., Any], new_desk: Callable[..., Any], assert_same_data: Callable[..., None]
) -> None:
    videos, labels = some_clips("106-30-416x304", "207")
    inline, jobs = new_desk(videos, labels, name="inline"), new_desk(videos, labels, name="jobs")
    inline.run()
    (jobs.stages.parent / "clusters.yaml").write_text(PROFILES)
    done = jobs.apart("run", "--json", "--on", "slurm")
    assert done.status == 0, done.err
    assert_same_data(jobs.store_data(), inline.store_data())
