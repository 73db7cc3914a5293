"""The benchmarks still run, and print what they are for."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from extractors.contract import Detections
from pipeline import video
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


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text, re.MULTILINE)
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


def cells(name: str, printed: str) -> list[list[float]]:
    """The numbers in each row of that name, a list per table; of several numbers in a cell the first, NaN where there is none."""
    lines = [line for line in printed.splitlines() if line.startswith(f"| {name} |")]
    return [[float(cell.split()[0]) if cell != "-" else np.nan for cell in line.strip("| ").split(" | ")[1:]] for line in lines]


@pytest.mark.slow
def test_trivial_jobs_beside_naive_dask() -> None:
    printed = run("scale.py", "--part", "jobs", "--jobs", "24", "--part", "plan", "--trials", "50", "--repeats", "1")
    assert [line for line in printed.splitlines() if " jobs: " in line] == ["24 jobs: 6 trials x 4 stages", "24 jobs: 4 trials x 6 stages"]
    ratios = [float(found) for found in re.findall(r"^ratio naive dask / affectpipe: (\d+\.\d+)$", printed, re.MULTILINE)]
    *ours_of_jobs, plan = cells("affectpipe, local:2", printed)
    for work, ours, naive, ratio in zip(cells("the work itself", printed), ours_of_jobs, cells("naive dask", printed), ratios, strict=True):
        assert ratio == pytest.approx(naive[0] / ours[0], abs=0.01)
        for way in (ours, naive):
            whole_s, around_s, job_ms, above_ms, cpu_ms, cpu_above_ms, peak_mb = way
            assert 0 < around_s < whole_s
            assert job_ms == pytest.approx(2 * 1000 * whole_s / 24, rel=0.01)
            assert above_ms == pytest.approx(job_ms - work[2], abs=0.02)
            assert cpu_above_ms == pytest.approx(cpu_ms - work[4], abs=0.02)
            assert 30 < peak_mb < 500
        assert 0 < work[4] <= 1.1 * work[2], "a process has one core at most; its time is told in steps"
    n_missing = number(r"^50 trials x 12 stages, 600 tracks, (\d+) of them missing$", printed)
    assert 1 <= n_missing <= 20
    _, around_s, run_s, whole_s, peak_mb = plan
    assert whole_s == pytest.approx(around_s + run_s, abs=0.02)
    assert 30 < peak_mb < 500


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two workers need two cores")
def test_two_workers_beside_one(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "sample", clips=1, seconds=1.0)
    clip = sample.videos / f"{sample.names[0]}.mp4"
    printed = run("scale.py", clip, "--part", "workers", "--copies", "2", "--repeats", "1")
    assert f"2 copies of {clip.name}\n" in printed
    (one,), (two,) = cells("local:1 on 1 core", printed), cells("local:2 on 2 cores", printed)
    (apart,) = cells("two runs, local:1 on 1 core each, half of the clips each", printed)
    for computing_s, whole_s, cpu_s in (one, two, apart):
        assert 0 < computing_s < whole_s
        assert cpu_s > 1.0, "that alone is what loading the libraries takes"
    assert number(r"speed-up, computing: (\d+\.\d\d) ", printed) == pytest.approx(one[0] / two[0], abs=0.02)
    assert number(r"speed-up, the whole command: (\d+\.\d\d) ", printed) == pytest.approx(one[1] / two[1], abs=0.02)
    assert number(r"what the machine gives, computing: (\d+\.\d\d) ", printed) == pytest.approx(one[0] / apart[0], abs=0.02)


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


def test_faces_beside_facenet_pytorch(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "sample", clips=2, seconds=1.0)
    clip = sample.videos / f"{sample.names[1]}.mp4"
    markdown = tmp_path / "faces.md"
    printed = run("faces.py", clip, "--repeats", "1", "--reference-frames", "3", "--min-face-px", "60", "--markdown", markdown)
    assert markdown.read_text() + "\n" == printed
    speed, quality = (line.split(" | ") for line in printed.splitlines() if line.startswith(f"| {clip.name} "))
    assert speed[1:3] == ["416x304", "30"]
    ratios = [float(re.split(r"[ *]", cell)[0]) for cell in speed[-3:-1]]
    parts = [float(part) for part in re.findall(r"\d+\.\d+", speed[6])]
    assert sum(parts[:3]) == pytest.approx(parts[3], abs=0.02), "decode + detect + crop, each rounded to 0.01 ms"
    ours_ms = [number(r"\((\d+\.\d+),", cell) for cell in speed[3:5]]
    assert ratios == pytest.approx([parts[3] / ms for ms in ours_ms], abs=0.06, rel=0.02), "ratios have one decimal, times two"
    # Two people who face the camera for thirty frames: all of their faces are found, and each is one track.
    assert quality[1:4] == ["60", "1.0000", "1.0000"]
    assert float(quality[4]) > 0.9
    assert quality[7:10] == ["0.00%", "2 (2)", "2 (2)"]


def test_a_clip_that_cannot_be_read_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("no video")
    words = [sys.executable, str(BENCHMARKS / "faces.py")]
    for name, status, said in (("broken.mp4", 1, "broken.mp4: cannot be decoded"), ("gone.mp4", 2, "no such file")):
        done = subprocess.run(
            [*words, str(tmp_path / name)], cwd=BENCHMARKS.parent, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_features_beside_their_bare_networks() -> None:
    printed = run("features.py", "--seconds", "0.4", "--repeats", "1", "iresnet50", "logmel")
    assert re.search(r"\| iresnet50 \| 10 \| \d+\.\d\d \| \d+\.\d \| \d+\.\d\d \| \d\.\d\d \|", printed), printed
    assert re.search(r"\| logmel \| 38 \| \d+\.\d\d \| \d+\.\d \| - \| - \|", printed), printed


@pytest.mark.parametrize("words", [[], ["--cold", "--dtype", "float32"]])
def test_reading_windows_beside_numpy(words: list[str], tmp_path: Path) -> None:
    small = ["--trials", "2", "--rows", "600", "--batches", "6", "--workers", "1", "--repeats", "1", "--folder", tmp_path]
    printed = run("reader.py", *small, *words)
    state, dtype = ("cold", "float32") if words else ("warm", "float16")
    assert f"2 trials x 600 rows x 3000 numbers, {dtype}, 0.0 GB; 1 workers of " in printed
    assert f"page cache {state}" in printed
    rates = {name: number(rf"(?m)^{name} +(\d+\.\d) windows/s ", printed) for name in ("store", "numpy memory maps", "whole .npy files")}
    assert min(rates.values()) > 0
    for other in ("numpy memory maps", "whole .npy files"):
        ratio = number(rf"(?m)^ratio store / {other}: (\d+\.\d\d);", printed)
        assert ratio == pytest.approx(rates["store"] / rates[other], abs=0.01, rel=0.01)
    assert list(tmp_path.iterdir()) == [], "what was written is removed"


def test_a_step_that_waits_for_data(tmp_path: Path) -> None:
    small = ["--trials", "2", "--rows", "900", "--batch", "2", "--steps", "3", "--repeats", "1"]
    printed = run("train.py", *small, "--folder", tmp_path)
    assert "8 windows in 4 batches of 2, 3456 numbers a row; 0 workers of " in printed
    steps = {name: number(rf"(?m)^{name} +(\d+\.\d) ms a step, of which it waits ", printed) for name in ("ahead", "in line")}
    ratio = number(r"(?m)^ratio in line / ahead: (\d+\.\d\d)", printed)
    assert ratio == pytest.approx(steps["in line"] / steps["ahead"], abs=0.01)
    shares = {name: number(rf"(?m)^{name} .* it waits (\d+\.\d\d)%", printed) for name in steps}
    assert 0 <= shares["ahead"] < shares["in line"] < 100, "what is read while another batch is computed is not waited for"
    assert list(tmp_path.iterdir()) == [], "what was written is removed"


def detections(*faces: tuple[int, int, float, float]) -> Detections:
    """(frame, track, x, prob): a face 100 px wide at x, its eyes 40 px apart."""
    frame, track, x, prob = (np.array(column) for column in zip(*faces, strict=True)) if faces else (np.zeros(0),) * 4
    boxes = np.stack([x, 0 * x, x + 100, 0 * x + 100], axis=1).reshape(-1, 4)
    points = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]]) + np.stack([x, 0 * x], axis=1).reshape(-1, 1, 2)
    return Detections(
        frame=frame.astype(np.int64),
        track=track.astype(np.int64),
        boxes=boxes.astype(np.float32),
        landmarks=points.astype(np.float32),
        prob=prob.astype(np.float32),
        shots=np.array([[0, 640, 480]]),
    )


def test_quality_of_known_faces() -> None:
    compare = module("face_quality").compare
    frame, shown_s = np.arange(4), np.full(4, 0.1)
    exact = detections((0, 0, 0, 0.99), (1, 0, 0, 0.99), (2, 0, 0, 0.99), (2, 1, 500, 0.95), (3, 0, 0, 0.99))
    every = detections((0, 0, 0, 0.99), (1, 0, 0, 0.99), (2, 0, 0, 0.99), (2, 1, 500, 0.95), (3, 0, 0, 0.99), (3, 2, 800, 0.75))
    # Frame 1 is missed, 2 is 20 px off (IoU 80 / 120) and has another id; in 3 one face is only less sure in exact, one is nowhere.
    tracked = detections((0, 7, 0, 0.99), (2, 8, 20, 0.99), (3, 8, 0, 0.99), (3, 9, 800, 0.95), (3, 4, 300, 0.95))
    found = compare(exact=exact, every=every, tracked=tracked, frame=frame, shown_s=shown_s, min_track_s=0.2)
    assert found.n_faces == 5
    assert found.recall == pytest.approx(3 / 5)
    assert found.recall_kept == pytest.approx(3 / 4), "the face at 500 is seen for 0.1 s"
    assert found.iou_mean == pytest.approx((1 + 80 / 120 + 1) / 3)
    assert found.iou_p5 == pytest.approx(80 / 120 + 0.1 * (1 - 80 / 120)), "a tenth of the way from the least to the next"
    assert found.landmark_error == pytest.approx((20 / 40) / 3)
    assert found.false_share == pytest.approx(1 / 4)
    assert (found.ids_exact, found.ids_tracked) == ((2, 1), (4, 1))
    assert found.switches == 1


def test_quality_of_nothing_is_not_told() -> None:
    none = detections()
    found = module("face_quality").compare(exact=none, every=none, tracked=none, frame=np.arange(3), shown_s=np.ones(3), min_track_s=0.2)
    told = (found.recall, found.recall_kept, found.iou_mean, found.iou_p5, found.landmark_error, found.switches)
    assert told == (None,) * 6
    assert (found.n_faces, found.false_share, found.ids_exact) == (0, 0.0, (0, 0))


def test_clips_made_of_clips(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "sample", clips=1, seconds=1.0)
    clip = tmp_path / "speech_512.mp4"
    shutil.copy(sample.videos / f"{sample.names[0]}.mp4", clip)
    (made,) = module("face_clips").derive([clip], tmp_path)
    assert made.name == "speech_512_mirrored_slow.mp4"
    before, after = video.frame_times(clip).times_s, video.frame_times(made).times_s
    np.testing.assert_allclose(after, 1.5 * before, atol=1e-3)


def test_the_picture_of_a_clip(tmp_path: Path) -> None:
    import cv2

    sample = write_sample(tmp_path / "sample", clips=1, seconds=1.0)
    clip, out = sample.videos / f"{sample.names[0]}.mp4", tmp_path / "faces.png"
    assert run("face_picture.py", clip, clip, out) == ""
    drawn = cv2.imread(str(out), cv2.IMREAD_COLOR_RGB)
    assert drawn is not None
    colours = set(map(tuple, drawn.reshape(-1, 3).tolist()))
    assert {(0, 114, 178), (213, 94, 0)} <= colours, "the same face has another id after the cut"
    assert (0, 158, 115) not in colours, "and there is no third"
