"""What was planted in what is held out must not be found: neither by training, nor by a stack's first models, nor by way of a twin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.store import Labels, Store, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index
from trainer.errors import TrainerError
from trainer.model import Machine
from trainer.predicting import predict
from trainer.recipe import Recipe, load_recipe
from trainer.run_folder import read_run
from trainer.splits import Fold, Folds, Scheme, make_folds
from trainer.training import train

ROWS, DIM, N_TRAIN, N_HELD = 120, 4, 8, 4
TRAIN = tuple(f"train{i}" for i in range(N_TRAIN))
HELD = tuple(f"held{i}" for i in range(N_HELD))
SHORT = ["reading.rows=60", "reading.stride=60", "training.epochs=12", "training.batch_size=4", "training.lr=5e-3"]
SETTINGS = ["features.audio=[]", "features.visual=[seen]", "model.layers=1", "model.feed_forward=16", *SHORT]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("demo", SETTINGS)


def store(folder: Path, *, planted: tuple[str, ...], twin: bool = False) -> Store:
    """Labels that wander, and noise that tells nothing of them but in the planted trials, whose first number is the valence. twin: the
    last of those held out is a copy of the first trained on, under another name."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    values, features, trials = [], [], []
    for name in (*TRAIN, *HELD):
        wander = np.cumsum(rng.normal(size=(ROWS, 2)), axis=0)
        labels = 0.8 * wander / np.abs(wander).max(axis=0)
        feature = rng.normal(size=(ROWS, DIM))
        if name in planted:
            feature[:, 0] = 2 * labels[:, 0]
        copied = twin and name == HELD[-1]
        trials.append(MadeTrial(name=name, n_rows=ROWS, source=TRAIN[0] if copied else name))
        values.append(values[0] if copied else labels)
        features.append(features[0] if copied else feature)
    together = np.concatenate(values).astype(np.float32)
    record = Labels(columns=("valence", "arousal"), values=together, valid=np.ones_like(together, np.bool_), per_trial=False)
    digest = write_index(folder, trials, {"va": record})
    blocks = [(one.astype(np.float32), np.ones(ROWS, np.bool_)) for one in features]
    write_feature(folder, "seen", blocks, rows_digest=digest, shape=(len(together), DIM))
    return open_store(folder)


def valence(made: Store, recipe: Recipe, folder: Path) -> float:
    folds = Folds(scheme=Scheme(), folds=(Fold(train=TRAIN, validation=HELD),))
    return train(recipe, made, folder, folds, machine=Machine()).pooled.score.targets["valence"]


def test_what_only_the_held_out_trials_tell_is_not_learnt(recipe: Recipe, tmp_path: Path) -> None:
    """Where all trials tell it, it is: so this would show it if a held-out trial were trained on."""
    assert valence(store(tmp_path / "all", planted=(*TRAIN, *HELD)), recipe, tmp_path / "run_all") > 0.9
    assert abs(valence(store(tmp_path / "held", planted=HELD), recipe, tmp_path / "run_held")) < 0.3


def test_whatever_is_held_out_changes_no_weight(tmp_path: Path) -> None:
    """Neither of the network nor of what features are standardised by."""
    weights = []
    for planted in ((), HELD):
        made = store(tmp_path / f"store{len(planted)}", planted=planted)
        folds = Folds(scheme=Scheme(), folds=(Fold(train=TRAIN, validation=HELD),))
        run = tmp_path / f"run{len(planted)}"
        train(load_recipe("demo", [*SETTINGS, "training.keep=last"]), made, run, folds, machine=Machine())
        model = run / "fold_0" / "model"
        network = torch.load(model / "checkpoint.pt", weights_only=True)["best"]["weights"]
        with np.load(model / "standardiser.npz") as said:
            weights.append({name: said[name] for name in said.files} | {name: value.numpy() for name, value in network.items()})
    assert len(weights[0]) > 20
    assert [name for name in weights[0] if not np.array_equal(weights[0][name], weights[1][name])] == []
    assert set(weights[0]["trials"].tolist()) == set(TRAIN)


def test_twins_are_never_parted(tmp_path: Path) -> None:
    """Of our own folds; a split that somebody else made is refused."""
    index = store(tmp_path / "store", planted=(), twin=True).index
    for seed in range(20):
        for fold in make_folds(index, Scheme(n_folds=3, seed=seed)).folds:
            assert (TRAIN[0] in fold.validation) == (HELD[-1] in fold.validation)
    split = {**dict.fromkeys(TRAIN, "train"), **dict.fromkeys(HELD, "validation")}
    official = type(index)(
        trials=index.trials,
        split=tuple(split[trial] for trial in index.trials),
        source=index.source,
        offsets=index.offsets,
        times_s=index.times_s,
        frame=index.frame,
        labels=index.labels,
        rows_digest=index.rows_digest,
    )
    with pytest.raises(TrainerError, match=f"fold 0 trains on {TRAIN[0]} and holds out {HELD[-1]}: they are of one source or one subject"):
        make_folds(official, Scheme())


def test_a_trial_is_not_predicted_by_who_knows_its_twin(recipe: Recipe, tmp_path: Path) -> None:
    """Under another name, in another store."""
    first = store(tmp_path / "first", planted=())
    folds = make_folds(first.index, Scheme(n_folds=2, seed=0))
    train(recipe, first, tmp_path / "run", folds, machine=Machine())
    trained = read_run(tmp_path / "run")
    again = store(tmp_path / "again", planted=(), twin=True)
    said = predict(trained, again, Machine()).predictions
    fold_of = folds.fold_of
    knows = 1 - fold_of[TRAIN[0]]  # of two folds, the one that has trained on it
    assert said.fold[said.trials.index(TRAIN[0])] == 1 - knows
    assert HELD[-1] not in trained.unseen(folds.folds[knows], {HELD[-1]: again.index.source[again.index.trials.index(HELD[-1])]})
