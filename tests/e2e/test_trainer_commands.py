"""The trainer's commands on a store that the pipeline made, through the command line; and what is wrong with a request, in one line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from desk import here
from trainable import Trainable, sets

from pipeline.hdf5 import sealed_file
from pipeline.store import open_store
from trainer.predictions_file import read_predictions

QUICK = {"reading__rows": 30, "reading__stride": 30, "training__epochs": 2, "model__layers": 1}


@pytest.fixture(scope="module")
def run(trainable: Trainable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "quick"
    trainable.train("demo", folder, "--folds", "2", *sets(**QUICK))
    return folder


def test_what_a_run_holds(run: Path, trainable: Trainable) -> None:
    index = open_store(trainable.rows.store).index
    said = json.loads((run / "scores.json").read_text())
    assert [fold["fold"] for fold in said["folds"]] == [0, 1]
    assert said["mean"] == pytest.approx(np.mean([fold["value"] for fold in said["folds"]]), abs=1e-12)
    predictions = read_predictions(run / "predictions.h5")
    assert predictions.trials == tuple(sorted(index.trials))
    assert set(predictions.fold.tolist()) == {0, 1}
    assert len(list(run.rglob("events.out.tfevents.*"))) == 2
    assert [path.parent.parent.name for path in sorted(run.rglob("log.csv"))] == ["fold_0", "fold_1"]


def test_predicting_again_gives_what_was_held_out(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    """Each trial by the fold that has not learnt from it: the very numbers of the training's own predictions."""
    said = trainable.command("predict", str(run), "--out", str(tmp_path / "again.h5"))
    assert said.status == 0, said.err
    assert said.json["left_out"] == []
    before, again = read_predictions(run / "predictions.h5"), read_predictions(tmp_path / "again.h5")
    assert again.trials == before.trials
    np.testing.assert_array_equal(again.fold, before.fold)
    np.testing.assert_array_equal(again.values, before.values)
    scored = trainable.command("evaluate", str(tmp_path / "again.h5"))
    assert scored.json["value"] == json.loads((run / "scores.json").read_text())["pooled"]["value"]


def test_what_was_learnt_from_is_not_predicted(trainable: Trainable, tmp_path: Path) -> None:
    trainable.train("demo", tmp_path / "run", "--folds", "official", *sets(**QUICK))
    index = open_store(trainable.rows.store).index
    train = {trial for trial, split in zip(index.trials, index.split, strict=True) if split == "train"}
    said = trainable.command("predict", str(tmp_path / "run"), "--out", str(tmp_path / "said.h5"))
    assert set(said.json["left_out"]) == train
    only = trainable.command("predict", str(tmp_path / "run"), "--out", str(tmp_path / "said.h5"), "--trial", sorted(train)[0])
    assert only.status == 2
    assert "nothing to predict: every fold of the run has learnt from" in only.err


def test_values_that_are_not_valid_decide_nothing(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    """Another number in every row that a feature does not have, and nothing changes: no loss, no weight, no prediction."""
    changed = tmp_path / "store"
    shutil.copytree(trainable.rows.store, changed)
    n_changed = 0
    for name in ("onet", "logmel", "mfcc39"):
        with h5py.File(changed / f"{name}.h5", "r+") as file:
            bad = ~file["valid"][:]
            values = file["values"][:]
            values[bad] = 1000.0
            file["values"][:] = values
            n_changed += int(bad.sum())
    assert n_changed > 50
    done = here(["train", "demo", "--store", str(changed), "--out", str(tmp_path / "run"), "--folds", "2", "--json", *sets(**QUICK)])
    assert done.status == 0, done.err
    expected, found = (read_predictions(folder / "predictions.h5") for folder in (run, tmp_path / "run"))
    np.testing.assert_array_equal(found.values, expected.values)
    losses = [[row["loss"] for row in _log(folder)] for folder in (run, tmp_path / "run")]
    assert losses[0] == losses[1]


def _log(run: Path) -> list[dict[str, str]]:
    with (run / "fold_0" / "model" / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("what", ["onet", "labels of va"])
def test_another_store_s_data_is_another_run(what: str, run: Path, trainable: Trainable, tmp_path: Path) -> None:
    """Under the same names and on the same rows. The run is as it was."""
    changed, mine = tmp_path / "store", tmp_path / "run"
    shutil.copytree(trainable.rows.store, changed)
    shutil.copytree(run, mine)
    with sealed_file(changed / "new.h5") as new, h5py.File(changed / ("onet.h5" if what == "onet" else "index.h5")) as old:
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            if name != "checksum":
                new.attrs[name] = value
        place = "values" if what == "onet" else "labels/va/values"
        new[place][5] = 0.25
    (changed / "new.h5").replace(changed / ("onet.h5" if what == "onet" else "index.h5"))
    before = {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()}
    done = here(["train", "demo", "--store", str(changed), "--out", str(mine), "--folds", "2", *sets(**QUICK)])
    assert done.status == 2
    assert f"holds another run: it differs in what the store holds of {what}; name a new folder with --out" in done.err
    assert {path: path.read_bytes() for path in mine.rglob("*") if path.is_file()} == before


def test_thresholds_of_other_folds_are_in_every_score(trainable: Trainable, tmp_path: Path) -> None:
    settings = {"reading__rows": 30, "reading__stride": 30, "training__epochs": 2, "training__lr": 1e-3, "model__layers": 1}
    said = trainable.train("zhou_au", tmp_path / "run", "--folds", "2", *sets(**settings, after__thresholds="true"))
    predictions = read_predictions(tmp_path / "run" / "predictions.h5")
    assert predictions.thresholds is not None
    for fold in said["folds"]:
        mine = [word for trial in predictions.trials if predictions.fold_of(trial) == fold["fold"] for word in ("--trial", trial)]
        alone = trainable.command("evaluate", str(tmp_path / "run"), *mine)
        assert alone.json["value"] == pytest.approx(fold["value"], abs=1e-12)
    again = trainable.command("predict", str(tmp_path / "run"), "--out", str(tmp_path / "again.h5"))
    assert again.status == 0, again.err
    np.testing.assert_array_equal(read_predictions(tmp_path / "again.h5").thresholds, predictions.thresholds)


def test_a_full_disk_is_one_error(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    """Nothing half-written is left, and there is room again for the same command."""
    words = ["train", "demo", "--store", str(trainable.rows.store), "--out", str(tmp_path / "run"), "--folds", "2", *sets(**QUICK)]
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, -1)); from pipeline.cli import main; main({words!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1
    assert "checkpoint.pt: cannot be written: File too large; make room or mend the permissions there, then run again" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path for path in (tmp_path / "run").rglob("*") if path.name.startswith(".")] == []
    assert here(words).status == 0
    expected, found = (read_predictions(folder / "predictions.h5") for folder in (run, tmp_path / "run"))
    np.testing.assert_array_equal(found.values, expected.values)


def test_runs_beside_each_other(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    trainable.train("demo", tmp_path / "longer", "--folds", "2", *sets(**QUICK | {"training__epochs": 8}))
    said = here(["compare", str(run), str(tmp_path / "longer"), "--json", "--draws", "200"])
    assert said.status == 0, said.err
    first, second = said.json["runs"]
    assert (first["name"], second["name"]) == ("quick", "longer")
    assert second["difference"]["value"] == pytest.approx(second["value"]["value"] - first["value"]["value"])
    assert second["difference"]["low"] > 0, "four times as long is better on these trials"
    table = here(["compare", str(run), str(tmp_path / "longer"), "--draws", "200"]).out
    assert "trials that all have; 95% intervals of 200 draws of trials, seed 0" in table


def test_a_submission_of_a_run(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    index = open_store(trainable.rows.store).index
    rows = [f"{trial}/{frame + 1:05}.jpg" for trial in index.trials for frame in index.frame[index.rows(trial)] if frame >= 0]
    (tmp_path / "template.txt").write_text("\n".join(["image_location,valence,arousal", *rows]) + "\n")
    done = here(["submission", str(tmp_path / "template.txt"), str(run), "--out", str(tmp_path / "va.txt"), "--json"])
    assert done.status == 0, done.err
    assert done.json["n_rows"] == len(rows)
    assert [line.partition(",")[0] for line in (tmp_path / "va.txt").read_text().splitlines()] == ["image_location", *rows]


def test_two_stages_predict_what_they_held_out(trainable: Trainable, tmp_path: Path) -> None:
    """Stage 2 reads, of trials that nobody has seen, the scores of the same models as in training."""
    small = {"model__gru_layers": 1, "model__gru_hidden": 16, "training__epochs": 1}
    first = {"model__layers": 1, "model__feed_forward": 16, "model__gru_layers": 1, "model__gru_hidden": 16, "training__epochs": 1}
    settings = {**small, **{f"stack__first__{key}": value for key, value in first.items()}, "stack__folds": 3}
    folder = tmp_path / "run"
    trainable.train("nguyen_va", folder, *sets(**settings, reading__rows=30, reading__stride=30))
    models = sorted(path.parent.name for path in (folder / "fold_0" / "first").glob("*/checkpoint.pt"))
    assert models == ["without_0", "without_0_1", "without_0_2", "without_1", "without_1_2", "without_2"]
    said = trainable.command("predict", str(folder), "--out", str(tmp_path / "again.h5"))
    assert said.status == 0, said.err
    before, again = read_predictions(folder / "predictions.h5"), read_predictions(tmp_path / "again.h5")
    assert again.trials == before.trials
    np.testing.assert_array_equal(again.values, before.values)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["train", "zhou"], "error: zhou: no such recipe: ours are demo, nguyen_au"),
        (["train", "demo", "--set", "training.ephocs=3"], "training.ephocs: unknown key; did you mean 'epochs'?"),
        (["train", "demo", "--set", "model.heads=7"], "model.heads: 128 numbers for 7 heads: they must be a multiple"),
        (["train", "demo", "--set", "task=fatigue"], "no labels for task 'fatigue': it has: au, expr, va; choose one of these"),
        (["train", "demo", "--set", "loss.name=bce"], "loss.name: loss 'bce' does not fit: task 'va' takes ccc or mse or pearson"),
        (["train", "demo", "--set", "features.audio=[]", "--set", "features.visual=[]"], "reads no feature: both lists are empty"),
        (["train", "demo", "--set", "reading.per=clip"], "reading.per is clip: task 'va' has labels per row"),
        (["train", "demo", "--folds", "1"], "1 folds cannot be made"),
        (["train", "demo", "--folds", "900"], "there are fewer groups than folds"),
        (["train", "demo", "--folds", "none.json"], "none.json: cannot be read"),
        (["train", "demo", "--subjects", "none.csv"], "none.csv"),
        (["train", "demo", "--device", "abacus"], "--device: no device 'abacus'"),
        (
            ["train", "zhou_au", "--folds", "official", "--set", "after.thresholds=true"],
            "thresholds cannot be tuned: they are tuned on other",
        ),
        (["train", "praveen_rja", "--set", "features.audio=[]"], "joint attention fuses sound and sight: it has no audio feature"),
        (["train", "praveen_rja_released"], "the released fusion cannot take these: expected 103 numbers that hear"),
        (["predict", "nowhere"], "nowhere: holds no run: No such file or directory; name the folder that `affectpipe train --out` made"),
        (["train", "demo", "--device", "meta"], "--device: no device 'meta': it is neither the processor nor a GPU of CUDA's"),
        (["train", "demo", "--workers", "-1"], "-1 is not in the range x>=0"),
        (["compare", "nowhere", "nowhere"], "compare: the same run twice"),
        (["evaluate", "nowhere.h5"], "nowhere.h5: no usable predictions: No such file or directory"),
        (["compare", "nowhere"], "nowhere: no usable predictions: No such file or directory"),
    ],
)
def test_wrong_requests(words: list[str], text: str, trainable: Trainable, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")] if words[0] == "train" else []
    done = trainable.command(*words, *out)
    assert done.status == 2
    assert text in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_stores_that_cannot_be_used(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    broken, other = tmp_path / "broken", tmp_path / "other"
    for folder in (broken, other):
        shutil.copytree(trainable.rows.store, folder)
    raw = bytearray((broken / "onet.h5").read_bytes())
    (broken / "onet.h5").write_bytes(raw[: len(raw) // 2])
    (other / "mfcc39.h5").unlink()
    cases: dict[Path, tuple[list[str], str]] = {
        tmp_path / "none": (["train", "demo"], "none: no store"),
        broken: (["train", "demo"], "feature 'onet' is damaged"),
        other: (["predict", str(run)], "no feature 'mfcc39': it has: logmel, onet"),
    }
    for store, (words, text) in cases.items():
        done = here([*words, "--store", str(store), "--out", str(tmp_path / "out.h5")])
        assert done.status == 2, done.out + done.err
        assert text in done.err
        assert not (tmp_path / "out.h5").exists()


def test_damaged_runs(run: Path, trainable: Trainable, tmp_path: Path) -> None:
    def damaged(name: str, text: bytes) -> Any:
        copy = tmp_path / name.replace("/", "_")
        shutil.copytree(run, copy)
        (copy / name).write_bytes(text)
        return trainable.command("predict", str(copy), "--out", str(tmp_path / "said.h5"))

    cases = {
        ("run.json", b"{"): "run.json: is not JSON",
        ("run.json", b'{"format": "affectpipe/run", "format_version": 1, "recipe": "demo"}'): "run.json: is damaged: KeyError",
        ("recipe.yaml", b"version: 2"): "recipe.yaml:1: version: must be 1, got 2",
        ("folds.json", b"[]"): "folds.json: is no file of folds",
        ("fold_0/model/checkpoint.pt", b"cos\nsystem\n(S'touch /tmp/x'\ntR."): "no usable checkpoint",
        ("fold_1/model/standardiser.npz", b"PK"): "no standardisation",
    }
    for (name, text), expected in cases.items():
        done = damaged(name, text)
        assert done.status == 2, f"{name}: {done.out}{done.err}"
        assert expected in done.err
        shutil.rmtree(tmp_path / name.replace("/", "_"))
