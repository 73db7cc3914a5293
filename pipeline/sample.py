"""A small labelled data set of real-face clips with known truth, to try everything on and to test with.

The folder gets videos/NAME.mp4, labels/ in the layout of Aff-Wild2's valence-arousal task, and truth.json: per video the
presentation times, where the frame code sits, when the tone sounds, and per trial what was drawn in every frame. All times are in
seconds on the video's clock (0 is the first frame's presentation), all positions in pixels of the upright picture.

Valence is in the picture only (the bend of the mouth); arousal is in the picture (how fast and how wide the head moves) and in the
sound (pitch and loudness). The same arguments give the same bytes with the same versions of NumPy, OpenCV and PyAV.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Bool, UInt8
from pipeline.errors import Problem, RequestError
from pipeline.synth.clips import Clip
from pipeline.synth.face import HEIGHT, WIDTH, Appearance, Portrait, draw_background, frame_code_box, read_frame_number, render
from pipeline.synth.motion import Subject
from pipeline.synth.video import Sound, write_video
from pipeline.synth.voice import RATE_HZ, TONE_HZ, TONE_S, find_onsets

__all__ = ["SampleSummary", "find_onsets", "read_frame_number", "write_sample"]

TASK, SPLITS = "VA_Estimation_Challenge", ("Train_Set", "Validation_Set")
LONGEST_S = 600.0  # a 60 Hz clip of this length still has frame numbers of 16 bits
UNANNOTATED = 1 / 25  # of a trial's rows, in one stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSummary:
    """What was written. names: of the videos; trials: of the label files, in the videos' order; n_frames: in all."""

    folder: Path
    videos: Path
    labels: Path
    truth: Path
    names: tuple[str, ...]
    trials: tuple[str, ...]
    n_frames: int


def write_sample(
    folder: Path, *, clips: int = 8, seconds: float = 6.0, seed: int = 0, progress: Callable[[str], None] | None = None
) -> SampleSummary:
    """Write the data set into a folder that is empty or not yet there.

    progress is told, in words, what is being written. Raises RequestError when an argument is out of range, the folder holds
    anything or cannot be written, or a package is missing.
    """
    _check(folder, clips, seconds, seed)
    portrait = _load_portrait()
    plans = [Clip.draw(index, seconds, seed) for index in range(clips)]
    videos, labels, truth = folder / "videos", folder / "labels", folder / "truth.json"
    try:
        for part in (videos, *(labels / TASK / split for split in SPLITS)):
            part.mkdir(parents=True)
        told = {}
        for number, clip in enumerate(plans, start=1):
            if progress:
                progress(f"{clip.name} ({clip.kind.replace('_', ' ')}), {number} of {clips}")
            told[clip.name] = _write_clip(clip, portrait, videos, labels / TASK / clip.split)
        _publish_text(truth, json.dumps(_truth(seconds, seed, told), indent=1) + "\n")
    except OSError as error:
        raise _refused(
            "the sample data cannot be written", str(folder), str(error), "choose a folder with room that you may write to"
        ) from error
    return SampleSummary(
        folder=folder,
        videos=videos,
        labels=labels,
        truth=truth,
        names=tuple(clip.name for clip in plans),
        trials=tuple(subject.trial for clip in plans for subject in clip.subjects),
        n_frames=sum(len(clip.clock.ticks) for clip in plans),
    )


def _refused(what: str, where: str, why: str, fix: str) -> RequestError:
    return RequestError(Problem(what=what, where=where, why=why, fix=fix))


def _check(folder: Path, clips: int, seconds: float, seed: int) -> None:
    bad = []
    if clips < 1:
        bad.append(Problem(what="too few clips", where="--clips", why=f"expected at least 1, got {clips}", fix="ask for one or more"))
    if not 1 <= seconds <= LONGEST_S:
        why = f"expected 1 to {LONGEST_S:.0f} seconds, got {seconds}"
        bad.append(Problem(what="clips of an unusable length", where="--seconds", why=why, fix="give a number in that range"))
    if seed < 0:
        bad.append(Problem(what="a bad seed", where="--seed", why=f"expected 0 or more, got {seed}", fix="give a number from 0 on"))
    if folder.exists() and not folder.is_dir():
        bad.append(Problem(what="not a folder", where=str(folder), why="a file has this name", fix="name another folder"))
    elif folder.is_dir() and any(folder.iterdir()):
        why, fix = "sample data is never mixed with other files", "name a new folder, or remove this one first"
        bad.append(Problem(what="the folder is not empty", where=str(folder), why=why, fix=fix))
    if bad:
        raise RequestError(bad)


def _load_portrait() -> Portrait:
    try:
        importlib.import_module("av")  # to learn, before anything is written, that it is there
        return Portrait.load()
    except ImportError as error:
        raise _refused(
            "a package is missing that draws or encodes the clips", "affectpipe sample", str(error), "pip install 'affectpipe[extract]'"
        ) from error


def _write_clip(clip: Clip, portrait: Portrait, videos: Path, labels: Path) -> dict[str, Any]:
    """Write one video and the labels of its trials; return its truth."""
    times_s = clip.clock.times_s
    looks = [Appearance.of(subject, times_s) for subject in clip.subjects]
    rng = np.random.default_rng((*clip.seed, 1))
    background = draw_background(rng)

    def pictures() -> Iterator[UInt8]:
        return (render(portrait, background, looks, frame) for frame in range(len(times_s)))

    sound = Sound(samples=clip.voice.samples(), start_s=clip.voice.start_s + clip.clock.start_s) if clip.voice else None
    path = videos / f"{clip.name}.mp4"
    _publish(path, lambda part: write_video(part, pictures(), clip.clock, sound, rotation_deg=clip.rotation_deg))
    trials = {}
    for subject, look in zip(clip.subjects, looks, strict=True):
        annotated = _draw_annotated(len(times_s), rng)
        told = _trial_truth(subject, look, annotated, subject.arousal.at(times_s).round(3))
        _publish_text(labels / f"{subject.trial}.txt", _label_text(told))
        trials[subject.trial] = told
    return {**_video_truth(clip), "trials": trials}


def _draw_annotated(count: int, rng: np.random.Generator) -> Bool:
    """(T,) bool: False in one stretch of rows, somewhere."""
    missing = max(2, round(count * UNANNOTATED))
    first = int(rng.integers(0, count - missing, endpoint=True))
    annotated = np.ones(count, dtype=np.bool_)
    annotated[first : first + missing] = False
    return annotated


def _label_text(told: dict[str, Any]) -> str:
    rows = zip(told["valence"], told["arousal"], told["annotated"], strict=True)
    return "valence,arousal\n" + "".join(f"{v},{a}\n" if known else "-5,-5\n" for v, a, known in rows)


def _trial_truth(subject: Subject, look: Appearance, annotated: Bool, arousal: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """Lists with one entry per frame; boxes and landmarks are those the face has, or would have where it is away."""
    return {
        "person": subject.person,
        "valence": look.valence.round(3).tolist(),
        "arousal": arousal.tolist(),
        "annotated": annotated.tolist(),
        "present": look.present.tolist(),
        "boxes": look.boxes.round(2).tolist(),
        "landmarks": look.landmarks.round(2).tolist(),
    }


def _video_truth(clip: Clip) -> dict[str, Any]:
    voice = clip.voice
    return {
        "file": f"videos/{clip.name}.mp4",
        "kind": str(clip.kind),
        "split": clip.split,
        "n_frames": len(clip.clock.ticks),
        "times_s": clip.clock.times_s.tolist(),
        "container_start_s": clip.clock.start_s,
        "rotation_deg": clip.rotation_deg,
        "audio": {"rate_hz": RATE_HZ, "start_s": voice.start_s, "stop_s": voice.stop_s} if voice else None,
        "tone_onsets_s": voice.onsets_s.tolist() if voice else [],
    }


def _truth(seconds: float, seed: int, videos: dict[str, Any]) -> dict[str, Any]:
    return {
        "format": "affectpipe/sample",
        "format_version": 1,
        "seed": seed,
        "seconds": seconds,
        "width": WIDTH,
        "height": HEIGHT,
        "frame_code_box": list(frame_code_box()),
        "tone": {"frequency_hz": TONE_HZ, "length_s": TONE_S},
        "videos": videos,
    }


def _publish(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside the path, then rename: a visible file is a complete file."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _publish_text(path: Path, text: str) -> None:
    def write(part: Path) -> None:
        part.write_text(text, encoding="utf-8", newline="\n")

    _publish(path, write)
