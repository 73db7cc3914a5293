"""What running a plan on several workers costs, and what it brings.

    python benchmarks/scale.py [CLIP ...] [--part jobs|plan|workers] [--jobs 5000] [--trials 20000] [--copies 8] [--repeats 3]

jobs: trivial jobs on `local:2`, beside the work itself (the same jobs by the bare worker, in two processes at once, so that they share
processors and disk as the workers do) and beside naive dask, a future per job, all at once. A job costs what it keeps a worker: seconds by
the clock, those in which workers start and end included, times workers, by jobs. The jobs are of many trials in few stages, then of few
trials in many stages.

plan: a plan of which all but one in a hundred tracks is cached, and whose stages with gaps do nothing: how long it takes to make it, and
to submit and collect what is missing.

workers: `affectpipe run` of the default stages on copies of the clips, or of sample clips: one worker on one core beside two workers on
two, so that each has one thread, and its decoding process no core of its own. They take turns.

Run it on an idle machine. The disk that counts is that of Python's temporary folder (TMPDIR): every artifact is synced to it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from cached import Made, make_cached
from face_cost import Others
from features import about
from scale_tables import head, middle, row
from scale_workers import measure_workers

from extractors.contract import Waveform
from pipeline import artifact

N_WORKERS = 2
FEW = 4  # stages of many trials, and trials of many stages
MISSING = 0.01  # of all tracks
IDLE_STAGES = 10  # of the plan; with the timeline and the sound there are twelve
PARTS = Path(__file__).with_name("scale_parts.py")
Figures = dict[str, float]


def stages_file(n_idle: int) -> str:
    idle = "".join(f'  nothing{n}: {{use: "nothing:Nothing", from: audio, number: {n}}}\n' for n in range(n_idle))
    return f"version: 1\nstages:\n  timeline: {{use: timeline}}\n  audio: {{use: waveform}}\n{idle}"


@contextmanager
def project(n_trials: int, n_idle: int, is_missing: Callable[[str], bool]) -> Iterator[tuple[Path, Made]]:
    """Trials whose timeline and sound are cached; the sound of all of them is one second of noise."""
    with tempfile.TemporaryDirectory(prefix="affectpipe-scale-") as folder:
        root, noise = Path(folder), Path(folder, "noise.h5")
        samples = np.asarray(np.random.default_rng(0).normal(0, 0.1, 16_000), np.float32)
        waveform = Waveform(samples=samples, rate_hz=16_000, valid=np.ones(100, np.bool_))
        artifact.write_waveform(noise, about("audio"), waveform=waveform)
        yield root, make_cached(root, n_trials, stages_file(n_idle), real={"audio": noise}, is_missing=is_missing)


def started(*words: str | Path) -> subprocess.Popen[str]:
    argv = [sys.executable, str(PARTS), *map(str, words)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def figures(process: subprocess.Popen[str]) -> Figures:
    """The last line of what it prints."""
    printed, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return dict(json.loads(printed.splitlines()[-1]))


def bare(root: Path) -> Figures:
    """Two processes at once, from the moment when both are ready."""
    processes = [started("bare", root, "--share", f"{number}/{N_WORKERS}") for number in range(N_WORKERS)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    both = [figures(process) for process in processes]
    sums = {name: sum(each[name] for each in both) for name in ("n_jobs", "cpu_s")}
    return sums | {"wall_s": max(each["run_s"] for each in both)}


def pooled(root: Path, part: str) -> Figures:
    found = figures(started(part, root, "--workers", str(N_WORKERS)))
    return found | {"wall_s": found["start_s"] + found["run_s"] + found["close_s"]}


def measure_jobs(n_trials: int, n_stages: int, repeats: int) -> None:
    ways: dict[str, Callable[[Path], Figures]] = {
        "the work itself": bare,
        f"affectpipe, local:{N_WORKERS}": lambda root: pooled(root, "client"),
        "naive dask": lambda root: pooled(root, "naive"),
    }
    found: dict[str, list[Figures]] = {way: [] for way in ways}
    with project(n_trials, n_stages, lambda stage: stage.startswith("nothing")) as (root, made):
        for _ in range(repeats):
            for way, run in ways.items():
                for folder in (root / "cache").glob("nothing*"):
                    shutil.rmtree(folder)
                os.sync()  # what is removed is not to be written out during the measurement
                found[way].append(run(root))
                assert found[way][-1]["n_jobs"] == len(made.missing)
    n_jobs = len(made.missing)
    print(f"\n{n_jobs} jobs: {n_trials} trials x {n_stages} stages")
    head("", "s", "of them starting and closing", "ms a job", "above the work", "processor ms a job", "above the work", "client, peak MB")
    work = found["the work itself"]
    for way, runs in found.items():
        cells = [middle([each["wall_s"] for each in runs])]
        cells.append("-" if runs is work else middle([each["wall_s"] - each["run_s"] for each in runs]))
        for name, factor in (("wall_s", N_WORKERS), ("cpu_s", 1)):
            each_ms = [each[name] * factor * 1000 / n_jobs for each in runs]
            work_ms = [each[name] * factor * 1000 / n_jobs for each in work]
            cells += [middle(each_ms), "-" if runs is work else middle([a - b for a, b in zip(each_ms, work_ms, strict=True)])]
        row(way, *cells, "-" if runs is work else f"{max(each['peak_mb'] for each in runs):.0f}")
    ours, naive = (statistics.median([each["wall_s"] for each in found[way]]) for way in list(ways)[1:])
    print(f"ratio naive dask / affectpipe: {naive / ours:.2f}")


def measure_plan(n_trials: int, repeats: int) -> None:
    chance = random.Random(0)
    share = MISSING * (IDLE_STAGES + 2) / IDLE_STAGES

    def is_missing(stage: str) -> bool:
        return stage.startswith("nothing") and chance.random() < share

    found: list[Figures] = []
    with project(n_trials, IDLE_STAGES, is_missing) as (root, made):
        for _ in range(repeats):
            for path in made.missing:
                path.unlink(missing_ok=True)
            os.sync()
            found.append(pooled(root, "client"))
    n_missing = len(made.missing)
    print(f"\n{n_trials} trials x {IDLE_STAGES + 2} stages, {made.n_tracks} tracks, {n_missing} of them missing")
    head("", "planning: s", "starting and closing: s", "submitted and collected: s", "all but planning: s", "client, peak MB")
    parts = [[each["plan_s"] for each in found], [each["wall_s"] - each["run_s"] for each in found], [each["run_s"] for each in found]]
    peak_mb = max(each["peak_mb"] for each in found)
    row(f"affectpipe, local:{N_WORKERS}", *map(middle, parts), middle([each["wall_s"] for each in found]), f"{peak_mb:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, metavar="CLIP", help="for the part workers; sample clips where none is given")
    parser.add_argument(
        "--part", action="append", choices=("jobs", "plan", "workers"), help="may be repeated; all of them where none is given"
    )
    parser.add_argument("--jobs", type=int, default=5_000)
    parser.add_argument("--trials", type=int, default=20_000, help="of the part plan")
    parser.add_argument("--copies", type=int, default=8, help="of each clip: starting the workers is to count for little")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    parts = options.part or ("jobs", "plan", "workers")
    others = Others()
    if "jobs" in parts:
        many = max(options.jobs // FEW, 1)
        measure_jobs(many, FEW, options.repeats)
        measure_jobs(FEW, many, options.repeats)
    if "plan" in parts:
        measure_plan(options.trials, options.repeats)
    if "workers" in parts:
        measure_workers(options.clips, options.copies, options.repeats)
    cores = others.cores()
    print(f"\n{os.cpu_count()} cores, of which others kept busy {'?' if cores is None else f'{cores:.2f}'}")


if __name__ == "__main__":
    main()
