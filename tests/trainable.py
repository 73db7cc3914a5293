"""Stores to train on: sample clips with more labels, made of what is true of them, and features that the pipeline extracted."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from desk import REPOSITORY, Desk, Done, here

from pipeline.sample import write_sample

CLIPS, SECONDS = 64, 1.0  # short ones: what counts is how many there are
EXPRESSIONS = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
UNITS = ",".join(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
EMOTIONS = "Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """rows: a store with labels per row of `va`, `expr` and `au`; clips: one with `emi`, a label per clip."""

    rows: Desk
    clips: Desk

    def train(self, recipe: str, out: Path, *options: str, clips: bool = False) -> dict[str, Any]:
        """The command's result, which must be 0."""
        done = self.command("train", recipe, "--out", str(out), *options, clips=clips)
        assert done.status == 0, done.out + done.err
        return dict(done.json)

    def command(self, *words: str, clips: bool = False) -> Done:
        return here([*words, "--store", str((self.clips if clips else self.rows).store), "--json"])


def sets(**values: object) -> list[str]:
    """training__lr=1e-3 as --set training.lr=1e-3."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


@pytest.fixture(scope="session")
def trainable(tmp_path_factory: pytest.TempPathFactory) -> Trainable:
    root = tmp_path_factory.mktemp("trainable")
    made = write_sample(root / "data", clips=CLIPS, seconds=SECONDS, seed=1)
    truth = json.loads(made.truth.read_text(encoding="utf-8"))["videos"]
    for video in truth.values():
        for trial, told in video["trials"].items():
            _write_rows(made.labels, video["split"], trial, told)
    stages = (REPOSITORY / "stages.yaml").read_text(encoding="utf-8")
    rows = _desk(root / "rows", made.videos, made.labels, root / "cache", stages)
    clips = _desk(root / "clips", root / "clips" / "videos", root / "clips" / "labels", root / "cache", stages)
    _write_clips(clips, made.videos, truth)
    for desk in (rows, clips):
        desk.run()
    return Trainable(rows=rows, clips=clips)


def _desk(root: Path, videos: Path, labels: Path, cache: Path, stages: str) -> Desk:
    root.mkdir()
    desk = Desk(videos=videos, labels=labels, stages=root / "stages.yaml", cache=cache, store=root / "store")
    desk.write_stages(stages)
    return desk


def _write_rows(labels: Path, split: str, trial: str, told: dict[str, Any]) -> None:
    """Expressions are the eight fields of the plane of valence and arousal; units are on above some valence, or some arousal."""
    valence, arousal = np.array(told["valence"]), np.array(told["arousal"])
    classes = np.digitize(valence, [-0.4, 0.0, 0.4]) * 2 + (arousal > 0.0)
    units = np.stack(
        [*(valence > cut for cut in (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5)), *(arousal > cut for cut in (-0.5, -0.3, -0.1, 0.1, 0.3, 0.5))]
    )
    known = np.array(told["annotated"])
    expressions = np.where(known, classes, -1)
    lines = {
        "EXPR_Recognition_Challenge": [EXPRESSIONS, *map(str, expressions)],
        "AU_Detection_Challenge": [UNITS, *(",".join(map(str, row)) for row in np.where(known, units, -1).T.astype(int))],
    }
    for challenge, text in lines.items():
        path = labels / challenge / split / f"{trial}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(text) + "\n", encoding="utf-8")


def _write_clips(desk: Desk, videos: Path, truth: dict[str, Any]) -> None:
    """Clips with one person, under numbers; intensities are of the clip's mean valence and arousal."""
    desk.videos.mkdir()
    assert desk.labels is not None
    desk.labels.mkdir()
    rows: dict[str, list[str]] = {"train": [], "valid": []}
    for number, (name, video) in enumerate(sorted(truth.items())):
        if len(video["trials"]) > 1:
            continue
        (told,) = video["trials"].values()
        shutil.copy2(videos / f"{name}.mp4", desk.videos / f"{number:05}.mp4")
        valence, arousal = (0.5 + 0.5 * float(np.mean(told[key])) for key in ("valence", "arousal"))
        said = (valence, arousal, 1 - valence, 1 - arousal, (valence + arousal) / 2, (1 + valence - arousal) / 2)
        rows["train" if number % 3 else "valid"].append(",".join([f"{number:05}", *(f"{value:.4f}" for value in said)]))
    for split, lines in rows.items():
        (desk.labels / f"{split}_split.csv").write_text("\n".join([f"Filename,{EMOTIONS}", *lines]) + "\n", encoding="utf-8")
