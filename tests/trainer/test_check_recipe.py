"""Where a recipe does not go with a store it is said before anything is trained or written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import TrainerError
from trainer.model import Machine, task_for
from trainer.recipe import Recipe, load_recipe
from trainer.training import folds_for, train

BASE = """\
version: 1
task: va
features: {audio: [vggish], visual: [arcface]}
reading: {rows: 16, stride: 16}
model: {system: gru_attention, gru_layers: 1, gru_hidden: 4, attentions: 0}
loss: {name: ccc}
training: {epochs: 1, lr: 1e-3}
"""
STACK = "stack: {folds: 3, first: {features: {visual: [arcface]}}}\n"
Begin = Callable[..., Path]


@pytest.fixture
def begin(make_store: Callable[..., Any], tmp_path: Path) -> Begin:
    """Trains; returns the run's folder, which is not made where the recipe is refused."""

    def run(text: str, *sets: str) -> Path:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        recipe: Recipe = load_recipe(str(tmp_path / "mine.yaml"), sets)
        store = make_store(counts={str(i): 20 for i in range(6)}).open()
        train(recipe, store, tmp_path / "run", folds_for(recipe, store, task_for(store, recipe.task)), machine=Machine())
        return tmp_path / "run"

    return run


CLIPS = "reading.per is clip: task 'va' has labels per row; set reading.per=window, or train another task"
WRONG: dict[str, tuple[str, tuple[str, ...], str]] = {
    "the loss": (BASE, ("loss.name=bce",), "loss.name: loss 'bce' does not fit: task 'va' takes ccc or mse or pearson"),
    "the first model's loss": (BASE + STACK, ("stack.first.loss.name=bce",), "loss.name: loss 'bce' does not fit"),
    "clips": (BASE, ("reading.per=clip",), f"mine, model: {CLIPS}"),
    "clips of the first model": (BASE + STACK, ("stack.first.reading.per=clip",), f"mine, first: {CLIPS}"),
    "rows": (BASE, ("task=emi",), "mine, model: reading.per is window: task 'emi' has one label per clip; set reading.per=clip"),
    "no feature": (BASE, ("features={}",), "mine, model: reads no feature: both lists are empty; name some below features.audio or"),
    "no feature first": (BASE + STACK, ("stack.first.features={}",), "mine, first: reads no feature: both lists are empty"),
    "three widths": (
        BASE,
        ("after.smooth=mean", "after.width_rows=[3, 3, 3]"),
        "smoothing 'mean': does not fit: there are 2 targets, and 3 widths; give one width, or one for each target",
    ),
    "thresholds of numbers": (BASE, ("after.thresholds=true",), "mine, after: thresholds cannot be tuned: they are tuned on other folds"),
}


@pytest.mark.parametrize(("text", "sets", "expected"), WRONG.values(), ids=WRONG.keys())
def test_a_recipe_that_does_not_go_with_the_store(text: str, sets: tuple[str, ...], expected: str, begin: Begin, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"^[\w., ']+: ") as caught:
        begin(text, *sets)
    assert str(caught.value).startswith(expected)
    assert not (tmp_path / "run").exists()


def test_those_that_do(begin: Begin) -> None:
    assert (begin(BASE + STACK, "features={}", "after.smooth=mean", "after.width_rows=[3, 5]") / "scores.json").exists()
