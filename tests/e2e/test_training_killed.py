"""A training that is killed at any moment, and run again: its weights are those of one that was left alone, bit for bit."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from desk import COMMAND, Desk, Done, here
from trainable import sets

from trainer.predictions_file import read_predictions

SETTINGS = {"features__visual": "[]", "reading__rows": 30, "reading__stride": 15, "training__epochs": 20, "training__batch_size": 4}
KILLS = 8


def argv(light: Desk, out: Path) -> list[str]:
    return [str(COMMAND), "train", "demo", "--store", str(light.store), "--out", str(out), "--folds", "2", *sets(**SETTINGS)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Of both folds, the ones that were kept."""
    found = {}
    for fold in (0, 1):
        said = torch.load(run / f"fold_{fold}" / "model" / "checkpoint.pt", weights_only=True)
        assert said["finished"]
        found |= {f"{fold}/{name}": value for name, value in said["best"]["weights"].items()}
    return found


def log(run: Path) -> list[dict[str, str]]:
    """But for what the clock says."""
    rows = []
    for fold in (0, 1):
        with (run / f"fold_{fold}" / "model" / "log.csv").open() as file:
            rows += [{key: value for key, value in row.items() if key not in ("seconds", "waiting_share")} for row in csv.DictReader(file)]
    return rows


@pytest.mark.timeout(600)
def test_killed_in_the_middle_of_an_epoch(light: Desk, tmp_path: Path) -> None:
    whole, killed, moments = tmp_path / "whole", tmp_path / "killed", random.Random(1)
    subprocess.run(argv(light, whole), check=True, capture_output=True, timeout=200)
    n_killed, epochs = 0, set()
    while n_killed < KILLS:
        before = sum(1 for _ in killed.rglob("checkpoint.pt"))
        run = subprocess.Popen(argv(light, killed), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert run.stderr is not None
        line = run.stderr.readline()  # an epoch has ended, and the next begins
        assert "epoch" in line or "fold" in line, line
        time.sleep(moments.uniform(0, 0.3))
        run.send_signal(signal.SIGKILL)
        run.stderr.close()
        if run.wait(60) == 0:  # it was faster
            break
        n_killed += 1
        epochs.add(line.partition(", loss")[0])
        assert sum(1 for _ in killed.rglob("checkpoint.pt")) >= before
    assert len(epochs) >= 4, "killed in different epochs"
    done = subprocess.run(argv(light, killed), check=True, capture_output=True, text=True, timeout=200)
    assert "held out" in done.stdout or "pooled" in done.stdout
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert log(killed) == log(whole)
    one, other = (read_predictions(run / "predictions.h5") for run in (whole, killed))
    np.testing.assert_array_equal(one.values, other.values)


def test_it_goes_on_only_with_the_same_training(light: Desk, tmp_path: Path) -> None:
    def command(*words: str) -> Done:
        return here([*words, "--store", str(light.store)])

    words = ["train", "demo", "--out", str(tmp_path / "run"), "--folds", "2", *sets(**SETTINGS | {"training__epochs": 1})]
    assert command(*words).status == 0
    assert command(*words).status == 0, "nothing is left to be done"
    other = command(*words, "--set", "training.seed=1")
    assert other.status == 2
    assert "holds another run: it differs in the recipe's settings; name a new folder with --out" in other.err
    folds = command(*words[:5], "3", *words[6:])
    assert folds.status == 2
    assert "holds another run: it differs in folds" in folds.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    full = command("train", "demo", "--out", str(tmp_path / "full"), *sets(**SETTINGS))
    assert full.status == 2
    assert "is not empty: it holds no run of the trainer" in full.err
