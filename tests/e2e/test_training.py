"""Every recipe on the sample data, from features that the pipeline extracted and nothing else: what can be learnt is learnt, what cannot be
is not. The papers' rates and sizes are for hundreds of videos of minutes; those here are for 70 trials of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainable import Trainable, sets

from trainer.baselines import MEAN, SHUFFLED

SOUND = "[logmel,mfcc39]"
SHORT = {"reading__rows": 30, "reading__stride": 30, "training__batch_size": 8, "training__patience": 0}
SMALL = {**SHORT, "model__layers": 1, "model__feed_forward": 128, "training__lr": 1e-3, "training__epochs": 12}
FIRST = {
    "folds": 3,
    "first__features__audio": SOUND,  # the paper has pictures only, which do not show what is heard
    "first__model__layers": 1,
    "first__model__feed_forward": 128,
    "first__model__gru_layers": 1,
    "first__model__gru_hidden": 64,
    "first__training__batch_size": 8,
    "first__training__epochs": 14,
    "first__training__lr": 5e-4,
    "first__training__schedule": "constant",
}
VALENCE_AROUSAL: dict[str, tuple[int, dict[str, Any]]] = {  # folds and settings
    "demo": (2, {"training__epochs": 12, "reading__rows": 30, "reading__stride": 30}),
    "yu_va": (2, {**SMALL, "training__epochs": 26, "features__audio": SOUND, "after__smooth": "none"}),
    "zhou_va": (2, SMALL),
    "nguyen_va": (
        3,
        {
            **SHORT,
            **{f"stack__{key}": value for key, value in FIRST.items()},
            "model__gru_layers": 2,
            "model__gru_hidden": 64,
            "training__epochs": 12,
            "training__schedule": "constant",
        },
    ),
    "praveen_rja": (
        2,
        {"training__lr": 1e-3, "training__batch_size": 16, "training__epochs": 8, "reading__step": 2, "model__hidden": 64},
    ),
}


def values(score: dict[str, Any]) -> tuple[float, float]:
    return score["targets"]["valence"], score["targets"]["arousal"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", VALENCE_AROUSAL)
def test_valence_and_arousal_are_learnt(recipe: str, trainable: Trainable, tmp_path: Path) -> None:
    """Of trials that were held out: a CCC of 0.6 at least."""
    folds, settings = VALENCE_AROUSAL[recipe]
    assert min(values(trainable.train(recipe, tmp_path / "run", "--folds", str(folds), *sets(**settings))["pooled"])) >= 0.6


@pytest.mark.timeout(900)
@pytest.mark.parametrize("recipe", ["yu_va", "zhou_va", "praveen_rja"])
def test_nothing_is_learnt_of_other_trials_labels(recipe: str, trainable: Trainable, tmp_path: Path) -> None:
    """Neither valence and arousal together, nor by predicting the mean, which is a constant in each fold and so worth about nothing."""
    folds, settings = VALENCE_AROUSAL[recipe]
    few = {**settings, "training__epochs": 8}
    beside = trainable.train(recipe, tmp_path / "run", "--folds", str(folds), "--baselines", *sets(**few))["baselines"]
    assert beside[SHUFFLED]["value"] <= 0.1
    assert -0.1 < beside[MEAN]["value"] <= 0.0, "folds' means lie on the other side of what they hold out"


def test_what_is_not_in_a_feature_is_not_found(trainable: Trainable, tmp_path: Path) -> None:
    """Valence is in the picture only; arousal is heard, and crops brought upright do not show how the head moves."""
    heard = trainable.train("zhou_va", tmp_path / "heard", "--folds", "2", *sets(**SMALL, features__visual="[]"))["pooled"]
    seen = trainable.train("zhou_va", tmp_path / "seen", "--folds", "2", *sets(**SMALL, features__audio="[]"))["pooled"]
    assert (values(heard)[0] <= 0.2, values(heard)[1] >= 0.6) == (True, True), values(heard)
    assert (values(seen)[0] >= 0.6, values(seen)[1] <= 0.2) == (True, True), values(seen)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("zhou_expr", {**SMALL, "training__epochs": 16}),
        ("zhou_au", SMALL),
        ("nguyen_au", {**SMALL, "training__lr": 3e-2, "training__epochs": 10}),
    ],
)
def test_expressions_and_action_units_are_learnt(recipe: str, settings: dict[str, Any], trainable: Trainable, tmp_path: Path) -> None:
    """Mean F1 of eight classes, of twelve units. Always saying yes to a unit that is mostly on has a high F1: what was learnt is beyond
    that, and beyond what other trials' labels teach."""
    told = sets(**settings, features__audio=SOUND)
    result = trainable.train(recipe, tmp_path / "run", "--folds", "2", "--baselines", *told)
    assert result["pooled"]["value"] >= 0.6
    assert max(beside["value"] for beside in result["baselines"].values()) <= (0.25 if recipe == "zhou_expr" else 0.55)


def test_intensities_of_clips_are_learnt(trainable: Trainable, tmp_path: Path) -> None:
    short = {"members__visual__reading__rows": 40, "reading__rows": 40}
    fast = {**short, "training__lr": 1e-3, "training__batch_size": 8, "training__epochs": 16}
    result = trainable.train("yu_emi", tmp_path / "run", "--folds", "2", "--baselines", *sets(**fast), clips=True)
    assert result["pooled"]["value"] >= 0.6
    assert result["baselines"][SHUFFLED]["value"] <= 0.1
    assert set(result["folds"][0]["members"]) == {"visual", "audio"}
