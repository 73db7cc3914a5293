"""The faces stage beside facenet-pytorch's MTCNN, and `mode: tracked` beside `mode: exact`: speed and quality, clip by clip.

    python benchmarks/faces.py CLIP [CLIP ...] [--derived] [--min-face-px 40] [--repeats 3] [--markdown FILE]

Ours is the whole stage as the worker runs it, with its models loaded: decode, detect, track, align, encode, and an artifact that is
synced to disk. facenet-pytorch's is decoding by PyAV in the same process, `detect` in the better of batches of 1 and 8, and its own
crop and save, on --reference-frames frames spread evenly. They take turns, and the fastest repeat of each counts.

Run it on an idle machine: beside other work torch's threads wait for each other, and the reference takes ten times as long.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from face_clips import derive
from face_cost import Others, timed
from face_quality import Quality, compare, shown_s
from face_reference import BATCH, Reference, n_cores
from face_tables import BUSY_CORES, TIMED, Measured, quality_table, speed_table

from extractors.contract import Float64, Int64
from extractors.face.mtcnn import MtcnnParams
from pipeline import artifact, video
from pipeline.code_digest import code_digest
from pipeline.errors import AffectpipeError
from pipeline.executor import make_job
from pipeline.request import Request, prepare
from pipeline.threads import allowed_threads
from pipeline.worker import Job, Worker, check_device

STAGES = """version: 1
stages:
  timeline: {{use: timeline}}
  tracked: {{use: mtcnn, from: timeline, min_face_px: {px}}}
  exact: {{use: mtcnn, from: timeline, min_face_px: {px}, mode: exact}}
  every: {{use: mtcnn, from: timeline, min_face_px: {px}, mode: exact, min_prob: 0}}
"""
QUALITY = "### Faces of `mode: tracked` beside those of `mode: exact`, all frames (kept: tracks of min_track_s and more)"


class Bench:
    """A worker for each stage, whose models stay loaded, and the reference."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.workers = {stage: Worker() for stage in ("timeline", *TIMED, "every")}
        self.reference = Reference(min_face_px=options.min_face_px, device=options.device)

    def measure(self, clip: Path, jobs: dict[str, Job]) -> Measured:
        timeline = jobs["tracked"].items[0].inputs[0]
        frame, n_source = np.unique(artifact.read_rows(timeline).frame), len(artifact.read_source_times(timeline))
        some = frame[np.unique(np.linspace(0, len(frame) - 1, self.options.reference_frames).round().astype(np.int64))]
        # The first time at a size of picture takes several times as long, with the reference too: its libraries prepare for it.
        for stage in TIMED:
            self.compute(jobs[stage])
        self.reference.measure(clip, some[:BATCH])
        measured = Measured(name=clip.name, size=size_of(clip), n_frames=len(frame))
        others = Others()
        for _ in range(self.options.repeats):
            for stage in TIMED:
                measured.ours[stage].append(timed(partial(self.compute, jobs[stage]), len(frame)))
            measured.decoding_s.append(timed(partial(drain, clip, frame, n_source), len(frame)).wall_s)
            measured.reference.append(self.reference.measure(clip, some))
        measured.others_cores = others.cores()
        self.compute(jobs["every"])
        measured.quality = quality(jobs, frame, artifact.read_source_times(timeline)[frame])
        return measured

    def compute(self, job: Job) -> None:
        """Raises SystemExit with the worker's own words where the clip cannot be used."""
        problem = self.workers[job.stage].run(job).outcomes[0].problem
        if problem is not None:
            sys.exit(str(problem))


def make_ready(clip: Path, folder: Path, options: argparse.Namespace) -> dict[str, Job]:
    """The clip's jobs by stage, over a new cache in the folder."""
    (folder / "videos").mkdir(parents=True)
    (folder / "videos" / clip.name).symlink_to(clip.absolute())
    (folder / "stages.yaml").write_text(STAGES.format(px=options.min_face_px))
    request = Request(videos=folder / "videos", stages=folder / "stages.yaml", cache=folder / "cache", follow_links=True)
    try:
        prepared = prepare(request)
    except AffectpipeError as error:
        sys.exit(f"{clip}: {error}")
    if prepared.failures:
        sys.exit(f"{clip}: {prepared.failures[0].problem}")
    plan = prepared.plan()
    code = {task.stage.use: code_digest(task.stage.use) for task in plan.tasks}
    jobs = (make_job(plan, prepared.cache, [task], device=options.device, code=code[task.stage.use]) for task in plan.tasks)
    return {job.stage: job for job in jobs}


def quality(jobs: dict[str, Job], frame: Int64, times_s: Float64) -> Quality:
    tracked, exact, every = (artifact.read_found(jobs[stage].items[0].target) for stage in (*TIMED, "every"))
    shown, min_track_s = shown_s(times_s), MtcnnParams().min_track_s
    return compare(exact=exact, every=every, tracked=tracked, frame=frame, shown_s=shown, min_track_s=min_track_s)


def size_of(clip: Path) -> str:
    found = video.probe(clip)
    stream = found["streams"][found["video"]]
    return f"{stream['width']}x{stream['height']}"


def drain(clip: Path, frame: Int64, n_source: int) -> None:
    for _ in video.frames(clip, frame, n_source):
        pass


def report(clips: Sequence[Measured], options: argparse.Namespace, n_threads: int) -> str:
    import torch

    where = f"{n_cores()} cores" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    said = [
        f"min_face_px {options.min_face_px}; {where}; the fastest of {options.repeats} repeats, of facenet-pytorch on "
        f"{options.reference_frames} frames of each clip at most, in batches of 1 and {BATCH}, with {n_threads} torch threads.",
        f"Ours as `affectpipe run` has it: {allowed_threads()} threads for the networks, one for what is between them.",
        f"Ratios that a run beside more than {BUSY_CORES} cores' worth of other work gives are marked with *: they do not count.",
        *([] if options.device != "cpu" else ["On a GPU: not measured in this run."]),
    ]
    return "\n".join([*said, "", "### Speed of the whole stage", "", speed_table(clips), "", QUALITY, "", quality_table(clips), ""])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("--derived", action="store_true", help="also clips made of the given ones: see face_clips.py")
    parser.add_argument("--min-face-px", type=int, default=40)
    parser.add_argument("--reference-frames", type=positive, default=48, help="how many frames of a clip the reference looks at")
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write there what is printed")
    options = parser.parse_args()
    if missing := [str(clip) for clip in options.clips if not clip.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    return options


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return int(text)


def main() -> None:
    options = parsed()
    check_device(options.device)
    bench = Bench(options)
    with tempfile.TemporaryDirectory(prefix="affectpipe-faces-") as name:
        clips = options.clips + (derive(options.clips, Path(name)) if options.derived else [])
        jobs = [make_ready(clip, Path(name) / str(number), options) for number, clip in enumerate(clips)]
        for one in jobs:  # a clip that cannot be read ends it here, before anything long begins
            bench.compute(one["timeline"])
        measured = []
        for clip, one in zip(clips, jobs, strict=True):
            measured.append(bench.measure(clip, one))
            print(f"{clip.name}: {', '.join(f'{measured[-1].ratio(stage)[0]:.1f}' for stage in TIMED)} times", file=sys.stderr)
    text = report(measured, options, bench.reference.n_threads)
    print(text)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
