"""`doctor`: what will bite later. Rows against frames, variable rates, sound that is missing, short or late, and the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Float64
from pipeline import artifact, openface, sound, video
from pipeline.annotations import compare_rows
from pipeline.cache import Cache, State
from pipeline.config import Config
from pipeline.errors import AffectpipeError, Severity
from pipeline.plan import find_weights
from pipeline.request import Prepared
from pipeline.sources import Source
from pipeline.trials import Trial

VARIABLE = 0.01  # of the median interval: how far intervals may spread before a rate counts as variable
SHORT_S = 0.1


def examine(prepared: Prepared, told: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """machine: findings about it; trials: per trial its numbers and findings; problems: of files that are no trial."""
    sources: dict[str, dict[str, Any]] = {}
    rows = []
    for number, trial in enumerate(prepared.trials):
        if told is not None:
            told(number, len(prepared.trials))
        if trial.source.name not in sources:
            sources[trial.source.name] = _examine_source(trial.source, prepared)
        rows.append(_examine_trial(trial, sources[trial.source.name], prepared.config.store.tolerance_rows))
    return {
        "machine": machine(prepared.config, prepared.request.weights_folders, prepared.cache),
        "trials": rows,
        "problems": [f"{failure.trial}: {failure.problem}" for failure in prepared.failures],
    }


def machine(config: Config, weights_folders: Sequence[Path], cache: Cache) -> list[dict[str, Any]]:
    """What this machine has: ok or not, and the words."""
    found = [{"what": "decoder", "ok": True, "is": video.decoder_version()}]
    asked: list[tuple[str, Callable[[], str]]] = [("ffmpeg", _ffmpeg), ("GPU", _gpu)]
    asked.append(("weights", lambda: _weights(config, weights_folders, cache)))
    if any(stage.extractor.decoder == "openface" and stage.root is None for stage in config.stages):
        asked.append(("OpenFace", lambda: str(openface.binary())))
    for what, ask in asked:
        try:
            found.append({"what": what, "ok": True, "is": ask()})
        except AffectpipeError as error:
            found.append({"what": what, "ok": False, "is": str(error)})
    return found


def _ffmpeg() -> str:
    return f"{sound.decoder_version()} at {sound.ffmpeg_binary()}"


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none: extraction runs on the CPU"


def _weights(config: Config, folders: Sequence[Path], cache: Cache) -> str:
    paths, _ = find_weights(config, folders, cache)
    remote = {stage.name: f"{stage.remote.identity}, fetched when it runs" for stage in config.stages if stage.remote}
    return ", ".join(f"{stage}: {where}" for stage, where in {**paths, **remote}.items()) or "the stages file needs none"


def _examine_source(source: Source, prepared: Prepared) -> dict[str, Any]:
    try:
        info = video.sound_of(source.path)
        times_s = _times(source, prepared)
    except AffectpipeError as error:
        return {"error": str(error)}
    chosen = next(stream for stream in info["streams"] if stream["index"] == info["video"])
    steps = np.diff(times_s)
    step_s = float(np.median(steps)) if len(steps) else 0.0
    spans = [(start - info["first_frame_s"], stop - info["first_frame_s"]) for start, stop in info["sound_spans_s"]]
    found: dict[str, Any] = {
        "n_frames_decoded": len(times_s),
        "n_frames_header": chosen["n_frames_header"],
        "mean_hz": round(len(steps) / float(times_s[-1] - times_s[0]), 3) if len(steps) and times_s[-1] > times_s[0] else None,
        "variable_rate": bool(len(steps) and np.abs(steps - step_s).max() > max(VARIABLE * step_s, 0.002)),
        "sound_from_s": round(spans[0][0], 3) if spans else None,
        "sound_to_s": round(spans[-1][1], 3) if spans else None,
        "shown_to_s": round(float(times_s[-1]) + step_s, 3),
        "first_frame_s": info["first_frame_s"],
    }
    found["findings"] = list(_findings(found, info, len(spans)))
    return found


def _times(source: Source, prepared: Prepared) -> Float64:
    """From the timeline artifact where the cache has one, else by decoding."""
    name = prepared.config.timeline.name
    for key, seal in prepared.cache.seals(name).values():
        if seal["source"] == source.digest and prepared.cache.state(name, key) is State.DONE:
            return artifact.read_source_times(prepared.cache.path(name, key))
    return video.frame_times(source.path).times_s


def _findings(found: dict[str, Any], info: dict[str, Any], n_spans: int) -> Any:
    header = found["n_frames_header"]
    if header and header != found["n_frames_decoded"]:
        yield f"the header says {header} frames, {found['n_frames_decoded']} decode (an edit list, or damage)"
    if found["variable_rate"]:
        yield "variable frame rate: never turn a row number into a time by a rate"
    if info["audio"] is None:
        yield "no audio stream: audio features will be masked"
    elif found["sound_from_s"] is None:
        yield "the audio stream is empty"
    else:
        if found["sound_from_s"] > SHORT_S:
            yield f"the sound starts {found['sound_from_s']:.3f} s after the first picture"
        if found["sound_to_s"] < found["shown_to_s"] - SHORT_S:
            yield f"the sound ends {found['shown_to_s'] - found['sound_to_s']:.3f} s before the pictures"
        if n_spans > 1:
            yield f"the sound has {n_spans - 1} gaps"
    if found["first_frame_s"] > SHORT_S:
        yield f"the first picture is at {found['first_frame_s']:.3f} s of the container's clock"
    for kind in ("video", "audio"):
        count = sum(stream["type"] == kind for stream in info["streams"])
        if count > 1:
            yield f"{count} {kind} streams: number {info[kind]} is used"


def _examine_trial(trial: Trial, source: dict[str, Any], tolerance_rows: int) -> dict[str, Any]:
    row = {"trial": trial.name, "source": trial.source.path.name, "person": trial.person, **source}
    findings = list(source.get("findings", []))
    if "error" not in source:
        for labels in trial.labels:
            problem = compare_rows(labels, source["n_frames_decoded"], tolerance_rows)
            if problem is not None:
                word = "" if problem.severity is Severity.WARNING else "ERROR: "
                findings.append(f"{word}{labels.task} labels: {problem.what} ({problem.why})")
        row["n_labelled_rows"] = {record.task: 1 if record.frame is None else len(record.frame) for record in trial.labels}
    return row | {"findings": findings}
