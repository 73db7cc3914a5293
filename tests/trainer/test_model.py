"""What a model says, put on the rows that it is of; and which rows it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.store import Store
from trainer.errors import TrainerError
from trainer.features import Chosen
from trainer.model import Machine, Model, selection_for
from trainer.objective import Objective
from trainer.recipe import load_recipe
from trainer.tasks import task_of


class Tells(nn.Module):
    """Says the first two numbers of a feature, or of a clip their means over its rows."""

    def __init__(self, name: str, *, per_trial: bool) -> None:
        super().__init__()
        self.name, self.per_trial = name, per_trial

    def forward(self, features: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        said = features[self.name][..., :2]
        if self.per_trial:
            said = (said * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return {"final": said}


def model(name: str, *settings: str, per_trial: bool = False) -> Model:
    recipe = load_recipe("demo", ["reading.standardise=false", "reading.fill=zero", "loss.output=linear", *settings])
    learner = recipe.members["model"]
    task = task_of("fatigue", ("a", "b")) if per_trial else task_of("va")
    chosen = Chosen(audio=(), visual=(name,))
    network = Tells(name, per_trial=per_trial)
    return Model(learner=learner, features=chosen, objective=Objective(learner.loss, task), network=network, standardiser=None)


@pytest.mark.parametrize("settings", [("reading.rows=7", "reading.stride=3"), ("reading.rows=5", "reading.stride=5", "reading.step=3")])
def test_windows_are_put_where_they_are_from(settings: tuple[str, str], make_store: Callable[..., Any]) -> None:
    """Whatever the overlap and the step: a model that repeats a feature gives that feature back, row for row."""
    made = make_store({"106": 23, "207": 4, "9": 1}, valid_share=1.0)
    store: Store = made.open()
    selection = selection_for(store, Chosen(audio=(), visual=("arcface",)), None)
    said = model("arcface", *settings).predict(selection, Machine())
    assert said.keys() == {"106", "207", "9"}
    for trial, one in said.items():
        assert one.valid.all()
        np.testing.assert_allclose(one.values, made.values["arcface"][made.rows(trial)][:, :2], rtol=1e-6)


@pytest.mark.parametrize("discard", [True, False])
def test_rows_without_a_face_are_left_out_of_a_clip(discard: bool, make_store: Callable[..., Any]) -> None:
    """Discarded, the mean is that of the valid rows; kept, they count as zeros."""
    made = make_store({"106": 40, "207": 30}, valid_share=0.6)
    selection = selection_for(made.open(), Chosen(audio=(), visual=("arcface",)), None)
    settings = ("reading.per=clip", "reading.rows=60", f"reading.discard={str(discard).lower()}")
    said = model("arcface", *settings, per_trial=True).predict(selection, Machine())
    for trial, one in said.items():
        rows = made.rows(trial)
        values, valid = made.values["arcface"][rows][:, :2], made.valid["arcface"][rows]
        counted = values[valid].sum(axis=0) / (valid.sum() if discard else len(valid))
        np.testing.assert_allclose(one.values[0], counted, rtol=1e-5)


def test_it_is_told_which_trial_has_no_number(make_store: Callable[..., Any]) -> None:

    made = make_store({"106": 8, "207": 8}, valid_share=1.0)
    selection = selection_for(made.open(), Chosen(audio=(), visual=("arcface",)), None)
    broken = model("arcface", "reading.rows=8", "reading.stride=8")
    broken.network.register_forward_hook(lambda network, words, out: {"final": out["final"] + torch.tensor([[[0.0]], [[float("nan")]]])})
    with pytest.raises(TrainerError, match="trial 207: the network says what is no number"):
        broken.predict(selection, Machine())
