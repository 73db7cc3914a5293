"""A store that the pipeline made, from folds to a submission: what the trainer does around a network."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store import Index, open_store
from trainer.compare import compare
from trainer.folds_file import read_folds, write_folds
from trainer.labels import labelled_trials
from trainer.predictions import Predicted, Predictions, predictions_on
from trainer.predictions_file import read_predictions, write_predictions
from trainer.scores import evaluate
from trainer.splits import Scheme, make_folds
from trainer.submission import write_submission
from trainer.tasks import task_of


def noisy(index: Index, noise: float, path: Path) -> Predictions:
    """The labels with noise, and no prediction for every tenth row: by way of the file."""
    rng = np.random.default_rng(0)
    parts = {}
    for trial in labelled_trials(index, "va"):
        labels = np.nan_to_num(index.labels["va"].values[index.rows(trial)])
        valid = np.arange(len(labels)) % 10 != 3
        parts[trial] = Predicted(values=np.clip(labels + noise * rng.normal(size=labels.shape), -1, 1), valid=valid)
    write_predictions(path, predictions_on(index, task_of("va"), parts))
    return read_predictions(path)


def test_a_store_says_of_which_source_its_trials_are(light: Any) -> None:
    index = open_store(light.store).index
    source = dict(zip(index.trials, index.source, strict=True))
    assert source["video5_left"] == source["video5_right"] == hashlib.sha256((light.videos / "video5.mp4").read_bytes()).hexdigest()
    assert len(set(index.source)) == len(index.trials) - 1


def test_folds_of_a_store_keep_two_people_of_one_video_together(light: Any, tmp_path: Path) -> None:
    index = open_store(light.store).index
    for seed in range(5):
        folds = make_folds(index, Scheme(n_folds=3, seed=seed, stratify="va"), trials=labelled_trials(index, "va"))
        assert folds.fold_of["video5_left"] == folds.fold_of["video5_right"]
        write_folds(tmp_path / "folds.json", folds)
        assert read_folds(tmp_path / "folds.json", index) == folds
    official = make_folds(index, Scheme()).folds[0]
    assert official.validation == tuple(trial for trial, split in zip(index.trials, index.split, strict=True) if split == "validation")


def test_from_predictions_to_a_submission(light: Any, tmp_path: Path) -> None:
    index = open_store(light.store).index
    good, poor = noisy(index, 0.1, tmp_path / "good.h5"), noisy(index, 0.5, tmp_path / "poor.h5")
    scored = {"good": evaluate(good, index), "poor": evaluate(poor, index)}
    assert scored["good"].score.value > 0.95
    labels = index.labels["va"]
    lacking = sum(int(labels.valid[index.rows(trial)][3::10].any(axis=1).sum()) for trial in good.trials)
    assert scored["good"].n_filled == lacking > 0
    assert scored["good"].score.n_valid == {"valence": int(labels.valid[:, 0].sum()), "arousal": int(labels.valid[:, 1].sum())}
    difference = compare({name: one.by_trial for name, one in scored.items()}).runs[1].difference
    assert difference is not None
    assert difference.high < 0
    rows = [f"{trial}/{frame + 1:05}.jpg" for trial in reversed(index.trials) for frame in index.frame[index.rows(trial)]]
    (tmp_path / "template.txt").write_text("\n".join(["image_location,valence,arousal", *rows]) + "\n")
    report = write_submission(tmp_path / "template.txt", [good], tmp_path / "va.txt")
    written = (tmp_path / "va.txt").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in written] == rows
    assert (report.n_rows, report.n_filled) == (len(rows), int((~good.valid).sum()))
    last = good.slice_of(index.trials[-1])
    expected = good.values[last][good.valid[last]][0]
    # six digits are written
    np.testing.assert_allclose(np.array(written[0].split(",")[1:], float), expected, atol=5e-7)
