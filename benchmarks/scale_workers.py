"""One worker on one core beside two on two: `affectpipe run` of the default stages, whole, on copies of clips.

And what the machine gives: two such runs of one worker each, which know nothing of each other, at once on half of the clips each. Cores
that share a cache, memory or a clock are slower when both are busy, and no way of sharing out work can be faster than that.
"""

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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scale_tables import head, middle, row

from pipeline.sample import write_sample
from pipeline.sound import ffmpeg_binary

STAGES = Path(__file__).resolve().parents[1] / "stages.yaml"
SAMPLE_CLIPS, SAMPLE_S = 8, 6.0
ONE, TWO, APART = "local:1 on 1 core", "local:2 on 2 cores", "two runs, local:1 on 1 core each, half of the clips each"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Seconds: of the whole command, of its workers from when they were there to the last report, and of processors."""

    whole_s: float
    computing_s: float
    cpu_s: float


@contextmanager
def on_cores(numbers: slice) -> Iterator[None]:
    """What this thread starts in the block runs on these of the process's cores: the workers share them out among their threads, and
    decoding has none besides."""
    before = os.sched_getaffinity(0)
    if len(before) < numbers.stop:
        sys.exit(f"{numbers.stop} workers need {numbers.stop} cores, this process has {len(before)}")
    os.sched_setaffinity(0, sorted(before)[numbers])
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


def run(videos: Path, n_workers: int, first_core: int = 0) -> Run:
    """With a cache and a store of its own."""
    with tempfile.TemporaryDirectory(prefix="affectpipe-scale-") as folder, on_cores(slice(first_core, first_core + n_workers)):
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


def beside(halves: Sequence[Path]) -> Run:
    """A run of one worker for each of these folders, at once, on a core of its own: the seconds until the last has ended."""
    with ThreadPoolExecutor(len(halves)) as threads:
        started_cpu_s = _cpu_s()
        runs = list(threads.map(lambda number: run(halves[number], 1, number), range(len(halves))))
        cpu_s = _cpu_s() - started_cpu_s
    return Run(whole_s=max(each.whole_s for each in runs), computing_s=max(each.computing_s for each in runs), cpu_s=cpu_s)


def _halved(videos: Path, folder: Path) -> list[Path]:
    """Every other clip, and the rest, as links."""
    halves = [folder / name for name in ("even", "odd")]
    for half in halves:
        half.mkdir()
    for number, video in enumerate(sorted(videos.iterdir())):
        (halves[number % 2] / video.name).hardlink_to(video)
    return halves


def measure_workers(clips: Sequence[Path], n_copies: int, repeats: int) -> None:
    found: dict[str, list[Run]] = {ONE: [], TWO: [], APART: []}
    with tempfile.TemporaryDirectory(prefix="affectpipe-scale-") as folder:
        root = Path(folder)
        if not clips:
            clips = sorted(write_sample(root / "sample", clips=SAMPLE_CLIPS, seconds=SAMPLE_S).videos.iterdir())
        copy_clips(clips, root / "videos", n_copies)
        halves = _halved(root / "videos", root)
        for _ in range(repeats):
            found[ONE].append(run(root / "videos", 1))
            found[TWO].append(run(root / "videos", 2))
            found[APART].append(beside(halves))
    print(f"\n{n_copies} copies of {', '.join(clip.name for clip in clips)}")
    head("", "computing: s", "the whole command: s", "processors: s")
    for name, runs in found.items():
        row(name, *(middle([getattr(each, part) for each in runs]) for part in ("computing_s", "whole_s", "cpu_s")))
    for way, said in ((TWO, "speed-up"), (APART, "what the machine gives")):
        for part, name in (("computing_s", "computing"), ("whole_s", "the whole command")):
            one, other = (statistics.median(getattr(each, part) for each in found[which]) for which in (ONE, way))
            each = [getattr(a, part) / getattr(b, part) for a, b in zip(found[ONE], found[way], strict=True)]
            print(f"{said}, {name}: {one / other:.2f} ({min(each):.2f} to {max(each):.2f})")
