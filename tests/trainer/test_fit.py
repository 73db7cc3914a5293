"""The loop: which epoch is kept, when it ends, what it refuses, what it writes. That it goes on after a kill: tests/e2e."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.errors import TrainerError
from trainer.features import choose_features
from trainer.fit import Fitted, fit, seed_of
from trainer.metrics import Score, Tally
from trainer.model import Machine, Model, inputs_of, new_network, selection_for, task_for
from trainer.objective import Objective
from trainer.recipe import load_recipe
from trainer.selection import Selection
from trainer.tasks import task_of

SETTINGS = [
    "features.audio=[]",
    "features.visual=[arcface]",
    "model.layers=1",
    "model.feed_forward=8",
    "reading.rows=40",
    "reading.stride=40",
]
Prepare = Callable[..., tuple[Model, Selection]]


@pytest.fixture
def prepared(make_store: Callable[..., Any]) -> Prepare:
    """The demo's model on a made store, not standardised, with these settings."""
    store = make_store({"106": 90, "207": 80}).open()

    def prepare(*settings: str) -> tuple[Model, Selection]:
        recipe = load_recipe("demo", [*SETTINGS, "reading.standardise=false", *settings])
        learner = recipe.members["model"]
        features, task = choose_features(store, learner.features), task_for(store, "va")
        selection = selection_for(store, features, "va")
        torch.manual_seed(0)
        network = new_network(learner, inputs_of(selection.dims, features, learner, task))
        return Model(
            learner=learner, features=features, objective=Objective(learner.loss, task), network=network, standardiser=None
        ), selection

    return prepare


def judged(values: Sequence[float], seen: list[dict[str, torch.Tensor]] | None = None) -> Callable[[Model], Score]:
    """Says these values, one an epoch, whatever the model; notes the weights that it was shown."""
    left = list(values)

    def judge(model: Model) -> Score:
        if seen is not None:
            seen.append({name: value.clone() for name, value in model.network.state_dict().items()})
        tally = Tally(task_of("va"))
        tally.add([[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]], [[True, True]] * 2)
        score = tally.score()
        fields = {name: getattr(score, name) for name in score.__slots__} | {"value": left.pop(0)}
        return Score(**fields)

    return judge


def fitted(prepared: Prepare, folder: Path, judge: Any, *settings: str) -> tuple[Fitted, Model]:
    model, selection = prepared(*settings)
    return fit(model, selection, folder, name="fold 0, model", machine=Machine(), judge=judge), model


def test_the_best_epoch_is_kept(prepared: Prepare, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    done, model = fitted(prepared, tmp_path, judged([0.1, 0.5, 0.5, 0.2], seen), "training.epochs=4")
    assert done == Fitted(best_epoch=2, value=0.5, n_epochs=4), "the first of two that are alike"
    assert all(torch.equal(value, seen[1][name]) for name, value in model.network.state_dict().items())
    assert not model.network.training


def test_the_last_epoch_is_kept_where_asked(prepared: Prepare, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    done, model = fitted(prepared, tmp_path, judged([0.9, 0.1], seen), "training.epochs=2", "training.keep=last")
    assert (done.best_epoch, done.value) == (2, 0.1)
    assert all(torch.equal(value, seen[1][name]) for name, value in model.network.state_dict().items())


@pytest.mark.parametrize(("patience", "n_epochs"), [(0, 8), (1, 3), (2, 6)])
def test_it_ends_when_nothing_gets_better(patience: int, n_epochs: int, prepared: Prepare, tmp_path: Path) -> None:
    values = [0.1, 0.3, 0.2, 0.4, 0.3, 0.2, 0.1, 0.0]
    done, _ = fitted(prepared, tmp_path, judged(values), "training.epochs=8", f"training.patience={patience}")
    assert done.n_epochs == n_epochs


def test_a_finished_one_is_not_trained_again(prepared: Prepare, tmp_path: Path) -> None:
    first, model = fitted(prepared, tmp_path, judged([0.1, 0.2]), "training.epochs=2")
    again, other = fitted(prepared, tmp_path, judged([]), "training.epochs=2")
    assert again == first
    expected = model.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.network.state_dict().items())


def test_another_one_s_checkpoint_is_refused(prepared: Prepare, tmp_path: Path) -> None:
    fitted(prepared, tmp_path, judged([0.1]), "training.epochs=1")
    with pytest.raises(TrainerError, match=r"checkpoint\.pt: is of another training: it differs in: learner; name another folder"):
        fitted(prepared, tmp_path, judged([0.1]), "training.epochs=1", "training.lr=1e-2")


def test_weights_that_run_away(prepared: Prepare, tmp_path: Path) -> None:
    """Told in the epoch in which it happens, and nothing of it is kept."""
    model, selection = prepared("training.epochs=2")
    with torch.no_grad():
        next(model.network.parameters()).fill_(float("nan"))
    with pytest.raises(TrainerError, match=r"fold 0, model, epoch 1: the loss is no number: it is nan; lower training\.lr"):
        fit(model, selection, tmp_path, name="fold 0, model", machine=Machine())
    assert not (tmp_path / "checkpoint.pt").exists()


def test_clipped_gradients_move_less(prepared: Prepare, tmp_path: Path) -> None:
    """By SGD without momentum a step is the rate times the gradient, of which the norm is then at most what was asked for."""
    free = [
        "training.epochs=1",
        "training.optimiser=sgd",
        "training.weight_decay=0",
        "training.schedule=constant",
        "training.batch_size=100",
    ]
    moved = []
    for number, clip in enumerate((0.0, 1e-3)):
        before = {name: value.clone() for name, value in prepared()[0].network.state_dict().items()}
        _, model = fitted(prepared, tmp_path / str(number), judged([0.1]), *free, "training.lr=1.0", f"training.clip_norm={clip}")
        steps = [value.detach() - before[name] for name, value in model.network.named_parameters()]
        moved.append(float(torch.stack([step.square().sum() for step in steps]).sum().sqrt()))
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)
    assert moved[0] > 10 * moved[1]


def test_what_is_logged(prepared: Prepare, tmp_path: Path) -> None:
    fitted(prepared, tmp_path, judged([0.1, 0.25]), "training.epochs=2")
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["value"]) for row in rows] == [("1", "0.1"), ("2", "0.25")]
    assert all(0 <= float(row["waiting_share"]) < 1 for row in rows)
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("value")] == [(1, pytest.approx(0.1)), (2, pytest.approx(0.25))]
    assert {"lr", "loss", "value", "value_valence", "value_arousal", "seconds", "waiting_share"} <= set(board.Tags()["scalars"])


def test_seeds_follow_from_names() -> None:
    seeds = [seed_of(0, "fold 0, model", epoch) for epoch in range(1000)] + [seed_of(0, "fold 1, model", 0), seed_of(1, "fold 0, model", 0)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**56 for seed in seeds)


def test_patience_counts_from_the_best_epoch_whichever_is_kept(prepared: Prepare, tmp_path: Path) -> None:
    values = [0.1, 0.4, 0.3, 0.2, 0.5]
    done, _ = fitted(prepared, tmp_path, judged(values), "training.epochs=5", "training.patience=2", "training.keep=last")
    assert (done.n_epochs, done.best_epoch, done.value) == (4, 4, 0.2)


def test_the_rate_follows_its_schedule_and_dropout_stays(prepared: Prepare, tmp_path: Path) -> None:
    """Two batches an epoch: the rate after 0, 2 and 4 steps of a warm-up of two and a cosine of four. Each epoch begins in training mode,
    although it was scored before."""
    model, selection = prepared("training.epochs=3", "training.lr=0.1", "training.batch_size=3")
    modes: list[bool] = []
    model.network.register_forward_pre_hook(lambda network, _: modes.append(network.training))

    def judge(judged_model: Model) -> Score:
        judged_model.predict(selection, Machine())
        return judged([0.1])(judged_model)

    fit(model, selection, tmp_path, name="fold 0, model", machine=Machine(), judge=judge)
    with (tmp_path / "log.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file)]
    assert rates == pytest.approx([0.05, 0.1, 0.05], rel=1e-6)
    assert modes == [True, True, False, False] * 3


@pytest.mark.parametrize(
    "change",
    [
        {"state": {}},
        {"best": {"value": 0.1, "epoch": 1, "weights": {}}},
        {"best": {"value": 0.1, "epoch": 1, "weights": {"strange": torch.zeros(2)}}},
    ],
)
def test_a_checkpoint_that_holds_other_things(change: dict[str, Any], prepared: Prepare, tmp_path: Path) -> None:
    fitted(prepared, tmp_path, judged([0.1]), "training.epochs=1")
    path = tmp_path / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | change, path)
    with pytest.raises(TrainerError, match=r"checkpoint\.pt: is damaged: .*; remove it, and it is trained again"):
        fitted(prepared, tmp_path, judged([0.1]), "training.epochs=1")
