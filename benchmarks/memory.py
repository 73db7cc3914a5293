"""Peak memory of `affectpipe run` on a long video, its decoding processes included.

    python benchmarks/memory.py CLIP [--minutes 10] [--min-face-px 40] [--rate-hz native]

The clip is repeated without re-encoding until it is long enough. Every 0.1 s the proportional set sizes (/proc/PID/smaps_rollup,
"Pss": shared pages counted once) of the command and all of its children are added up; the largest sum is the peak. The named
alternative is in the same output: what the video's decoded frames would take if they were held at once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pipeline.sound import ffmpeg_binary
from pipeline.video import probe

STAGES = """version: 1
stages:
  timeline: {{use: timeline, rate_hz: {rate_hz}}}
  faces: {{use: mtcnn, from: timeline, min_face_px: {min_face_px}}}
  audio: {{use: waveform}}
  onet: {{use: onet, from: faces}}
  logmel: {{use: logmel, from: audio}}
  mfcc39: {{use: mfcc39, from: audio}}
"""
SAMPLE_EVERY_S = 0.1


def children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += children(int(child))
        except OSError:
            continue  # it ended between the listing and the look
    return found


def pss_mb(pid: int) -> float:
    total = 0
    for each in children(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except OSError:
            continue
    return total / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--min-face-px", type=int, default=40)
    parser.add_argument("--rate-hz", default="native", help="rows per second, and so how many of the frames are searched for faces")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affectpipe-memory-") as name:
        root = Path(name)
        (root / "videos").mkdir()
        (root / "stages.yaml").write_text(STAGES.format(min_face_px=options.min_face_px, rate_hz=options.rate_hz))
        seconds = probe(options.clip)["duration_s_header"]
        times = max(round(options.minutes * 60 / seconds) - 1, 0)
        long = root / "videos" / "long.mp4"
        loop = ["-nostdin", "-v", "error", "-stream_loop", str(times), "-i", str(options.clip)]
        subprocess.run([ffmpeg_binary(), *loop, "-map", "0:v:0", "-map", "0:a:0", "-c", "copy", str(long)], check=True)
        info = probe(long)
        words = ["run", str(root / "videos")]
        for option in ("stages.yaml", "cache", "store"):
            words += [f"--{option.partition('.')[0]}", str(root / option)]
        started, peak = time.monotonic(), 0.0
        process = subprocess.Popen([str(Path(sys.executable).with_name("affectpipe")), *words], stdout=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, pss_mb(process.pid))
            time.sleep(SAMPLE_EVERY_S)
        if process.returncode:
            sys.exit(f"affectpipe run ended with {process.returncode}")
    picture = next(stream for stream in info["streams"] if stream["type"] == "video")
    held_mb = picture["n_frames_header"] * picture["width"] * picture["height"] * 3 / 2**20
    size = f"{picture['width']}x{picture['height']}, {info['duration_s_header'] / 60:.1f} minutes, {picture['n_frames_header']} frames"
    print(f"{options.clip.name} repeated: {size}; min_face_px {options.min_face_px}, rate_hz {options.rate_hz}")
    print(f"{time.monotonic() - started:.0f} s, peak {peak:.0f} MB; all frames at once: {held_mb:.0f} MB; ratio {peak / held_mb:.4f}")


if __name__ == "__main__":
    main()
