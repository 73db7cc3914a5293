"""Kill -9 at random moments: nothing visible is ever incomplete, and what comes out in the end is as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from processes import left_of, needs_proc, started

KILLS = 15  # per way of killing
# Every kind of artifact that needs no network.
STAGES = """\
version: 1
stages:
  timeline: {use: timeline}
  crops:    {use: folder, root: ../crops}
  audio:    {use: waveform}
  logmel:   {use: logmel, from: audio}
  mfcc39:   {use: mfcc39, from: audio}
store: {rows: labels, dtype: float32, align: {default: mean}}
"""
CLIPS = ("106-30-416x304", "207")  # of a variable rate, and without sound


@needs_proc
@pytest.mark.parametrize("whole_group", [True, False], ids=["all its processes", "the main process alone"])
def test_a_killed_run_leaves_nothing_half_done(
    whole_group: bool,
    some_clips: Callable[..., Any],
    new_desk: Callable[..., Any],
    write_crops: Callable[..., None],
    tmp_path: Path,
    assert_all_whole: Callable[..., int],
    assert_same_data: Callable[..., None],
) -> None:
    """A run is killed, started again and killed, until it is through; then all is removed, and so on until KILLS runs were killed."""
    videos, labels = some_clips(*CLIPS)
    write_crops(tmp_path / "crops" / "207", range(38))
    undisturbed = new_desk(videos, labels, stages=STAGES, name="undisturbed")
    started_s = time.monotonic()
    assert undisturbed.apart("run").status == 0
    longest_s, expected = time.monotonic() - started_s, undisturbed.store_data()
    desk = new_desk(videos, labels, stages=STAGES, name="killed")
    moments = random.Random(int(whole_group))
    killed, most, ends = 0, 0, 0
    while killed < KILLS:
        run = started(desk)
        try:
            run.wait(moments.uniform(0.2, 1) * longest_s)
        except subprocess.TimeoutExpired:
            (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
            most = max(most, assert_all_whole(desk) if desk.cache.exists() else 0)
            continue
        assert run.returncode == 0
        assert_same_data(desk.store_data(), expected)
        ends += 1
        shutil.rmtree(desk.cache)
        shutil.rmtree(desk.store)
    assert most > 3, "no run was killed while there was anything to see"
    assert left_of(desk) == {}, "a decoder outlived the run"
    assert desk.apart("run").status == 0
    assert_all_whole(desk)
    assert_same_data(desk.store_data(), expected)
    assert desk.failures().keys() == undisturbed.failures().keys()


def test_two_runs_at_once_agree(
    some_clips: Callable[..., Any],
    new_desk: Callable[..., Any],
    write_crops: Callable[..., None],
    tmp_path: Path,
    assert_all_whole: Callable[..., int],
    assert_same_data: Callable[..., None],
) -> None:
    """Three, rather: all on one cache, two of them on one store."""
    videos, labels = some_clips(*CLIPS)
    write_crops(tmp_path / "crops" / "207", range(38))
    one = new_desk(videos, labels, stages=STAGES)
    other = replace(one, store=one.store.with_name("other_store"))
    runs = [started(desk) for desk in (one, one, other)]
    assert [run.wait(120) for run in runs] == [0, 0, 0]
    assert_all_whole(one)
    assert_same_data(one.store_data(), other.store_data())
    assert one.run()["computed"] == {}
    undisturbed = new_desk(videos, labels, stages=STAGES, name="undisturbed")
    undisturbed.run()
    assert_same_data(one.store_data(), undisturbed.store_data())
