"""How long planning takes when everything is cached: `affectpipe plan` as a whole process, beside GNU make on as many targets.

    python benchmarks/plan.py [--trials 20000] [--runs 3]

make compares modification times only; affectpipe computes the key of every track, stats its artifact and compares size, time and
inode with what they were when the artifact was last found whole. The ratio is that of the medians of the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cached import make_cached

STAGES = """version: 1
stages:
  timeline: {use: timeline}
  faces: {use: mtcnn, from: timeline}
  small_faces: {use: mtcnn, from: timeline, min_face_px: 20}
  audio: {use: waveform}
  onet: {use: onet, from: faces}
  onet_small: {use: onet, from: small_faces}
  logmel: {use: logmel, from: audio}
  mfcc39: {use: mfcc39, from: audio}
  egemaps: {use: egemaps_lld, from: audio}
  egemaps_old: {use: egemaps_lld, from: audio, feature_set: eGeMAPSv01a}
  functionals: {use: egemaps_functionals, from: [audio, timeline]}
  functionals_centred: {use: egemaps_functionals, from: [audio, timeline], anchor: centre}
"""


def make_makefile(root: Path) -> Path:
    """The same artifacts as make targets, each newer than its source."""
    targets = sorted(str(path) for path in (root / "cache").glob("*/*/*.h5"))
    lines = [f"all: {' '.join(targets)}"] + [f"{target}: {root}/stages.yaml" for target in targets]
    (root / "Makefile").write_text("\n".join(lines) + "\n")
    return root / "Makefile"


def timed(argv: list[str], runs: int) -> tuple[list[float], str]:
    """Wall seconds of each run, and the last output. One run before them fills the file system's caches."""
    seconds = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - started)
    return seconds[1:], done.stdout


def started_in(words: list[str]) -> float:
    return statistics.median(timed([str(Path(sys.executable).with_name("affectpipe")), *words], 5)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="affectpipe-plan-"))
    try:
        n_tracks = make_cached(root, options.trials, STAGES).n_tracks
        command = str(Path(sys.executable).with_name("affectpipe"))
        words = [command, "plan", str(root / "videos"), "--stages", str(root / "stages.yaml"), "--cache", str(root / "cache"), "--json"]
        ours, printed = timed(words, options.runs)
        peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        assert json.loads(printed)["run"] == 0, "everything should have been cached"
        makes, _ = timed(["make", "--question", "-r", "-f", str(make_makefile(root)), "all"], options.runs)
    finally:
        shutil.rmtree(root)
    a, b = statistics.median(ours), statistics.median(makes)
    print(f"{options.trials} trials x {n_tracks // options.trials} stages, {n_tracks} tracks, all cached; {os.cpu_count()} cores")
    for name, seconds in (("affectpipe plan", ours), ("GNU make -q", makes)):
        middle = statistics.median(seconds)
        print(f"{name:16} {middle:6.2f} s  (min {min(seconds):.2f}, max {max(seconds):.2f}), {middle / n_tracks * 1e6:.1f} us a track")
    print(f"peak memory of affectpipe plan: {peak_mb:.0f} MB")
    print(f"ratio affectpipe / make: {a / b:.2f}")
    print(f"affectpipe --help {started_in(['--help']):.2f} s")


if __name__ == "__main__":
    main()
