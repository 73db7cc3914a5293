"""One worker on one core beside two on two: `affectpipe run` of the default stages, whole, on copies of clips."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scale_tables import head, middle, row

from pipeline.sample import write_sample
from pipeline.sound import ffmpeg_binary

STAGES = Path(__file__).resolve().parents[1] / "stages.yaml"
SAMPLE_CLIPS, SAMPLE_S = 8, 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds: of the whole command, of its workers from when they were there to the last report, and of processors."""

    whole_s: float
    computing_s: float
    cpu_s: float


@contextmanager
def on_cores(n_cores: int) -> Iterator[None]:
    """What is started in the block runs on so many: the workers share them out among their threads, and decoding has none besides."""
    before = os.sched_getaffinity(0)
    if len(before) < n_cores:
        sys.exit(f"{n_cores} workers need {n_cores} cores, this process has {len(before)}")
    os.sched_setaffinity(0, sorted(before)[:n_cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def copy_clips(clips: Sequence[Path], folder: Path, n_copies: int) -> None:
    """The same packets under other bytes, so that each copy is a source of its own."""
    folder.mkdir()
    for clip in clips:
        for number in range(n_copies):
            target = folder / f"{clip.stem}-{number}{clip.suffix}"
            words = ["-map", "0", "-c", "copy", "-metadata", f"comment={number}", str(target)]
            subprocess.run([ffmpeg_binary(), "-nostdin", "-v", "error", "-i", str(clip), *words], check=True)


def run(videos: Path, n_workers: int) -> Run:
    """With a cache and a store of its own."""
    with tempfile.TemporaryDirectory(prefix="affectpipe-scale-") as folder, on_cores(n_workers):
        os.sync()
        started, cpu_s = time.perf_counter(), _cpu_s()
        options = ["--stages", STAGES, "--cache", Path(folder, "cache"), "--store", Path(folder, "store")]
        words = ["affectpipe", "run", videos, *options, "--on", f"local:{n_workers}", "--device", "cpu", "--json"]
        argv = [str(Path(sys.executable).with_name("affectpipe")), *map(str, words[1:])]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"affectpipe run ended with {done.returncode}: {done.stderr or done.stdout}")
        whole_s, cpu_s = time.perf_counter() - started, _cpu_s() - cpu_s
        (record,) = Path(folder, "cache", "runs").glob("*.jsonl")
        events = [json.loads(line) for line in record.read_text().splitlines()]
        there_s = next(event["at_s"] for event in events if event["event"] == "workers")
    return Run(whole_s=whole_s, computing_s=events[-1]["at_s"] - there_s, cpu_s=cpu_s)


def _cpu_s() -> float:
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def measure_workers(clips: Sequence[Path], n_copies: int, repeats: int) -> None:
    found: dict[int, list[Run]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="affectpipe-scale-") as folder:
        root = Path(folder)
        if not clips:
            clips = sorted(write_sample(root / "sample", clips=SAMPLE_CLIPS, seconds=SAMPLE_S).videos.iterdir())
        copy_clips(clips, root / "videos", n_copies)
        for _ in range(repeats):
            for n_workers, runs in found.items():
                runs.append(run(root / "videos", n_workers))
    print(f"\n{n_copies} copies of {', '.join(clip.name for clip in clips)}")
    head("", "computing: s", "the whole command: s", "processors: s")
    for n_workers, runs in found.items():
        name = f"local:{n_workers} on {n_workers} core{'s' if n_workers > 1 else ''}"
        row(name, *(middle([getattr(each, part) for each in runs]) for part in ("computing_s", "whole_s", "cpu_s")))
    for part, name in (("computing_s", "computing"), ("whole_s", "the whole command")):
        one, two = (statistics.median(getattr(each, part) for each in runs) for runs in found.values())
        each = [getattr(a, part) / getattr(b, part) for a, b in zip(*found.values(), strict=True)]
        print(f"speed-up, {name}: {one / two:.2f} ({min(each):.2f} to {max(each):.2f})")
