"""Every recipe on the sample data, from the features that the pipeline extracted and nothing else: what can be learnt is learnt, what cannot
be is not. The papers' rates and lengths are for hundreds of videos of minutes; those here are for two dozen clips of three seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trainable import Trainable, sets

SHORT = {"reading__rows": 90, "reading__stride": 45, "training__batch_size": 8, "training__patience": 0}
FAST = {**SHORT, "training__lr": 1e-3}
SOUND = "[logmel,mfcc39]"
FIRST = {
    f"stack__first__training__{key}": value for key, value in {"batch_size": 8, "epochs": 12, "lr": 3e-4, "schedule": "constant"}.items()
}
VALENCE_AROUSAL = {
    "yu_va": {**FAST, "training__batch_size": 4, "training__epochs": 16, "features__audio": SOUND, "after__width_rows": "[7]"},
    "zhou_va": {**FAST, "training__epochs": 14},
    "nguyen_va": {
        **SHORT,
        **FIRST,
        "training__epochs": 20,
        "training__schedule": "constant",
        "stack__folds": 3,
        "stack__first__features__audio": SOUND,  # the paper's pictures alone do not show what is heard
        "stack__first__model__layers": 1,
    },
    "praveen_rja": {"training__lr": 1e-3, "training__batch_size": 16, "training__epochs": 6, "reading__step": 6, "model__hidden": 64},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", VALENCE_AROUSAL)
def test_valence_and_arousal_are_learnt(recipe: str, trainable: Trainable, tmp_path: Path) -> None:
    """On clips that were held out; from other clips' labels nothing is."""
    result = trainable.train(recipe, tmp_path / "run", "--folds", "2", "--baselines", *sets(**VALENCE_AROUSAL[recipe]))
    print(recipe, result["pooled"], result["baselines"])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", ["zhou_expr", "zhou_au", "nguyen_au"])
def test_expressions_and_action_units_are_learnt(recipe: str, trainable: Trainable, tmp_path: Path) -> None:
    rate = {"training__lr": 3e-2} if recipe == "nguyen_au" else {"features__audio": SOUND, "training__lr": 1e-3}
    more = {"features__audio": SOUND, "training__epochs": 16}
    result = trainable.train(recipe, tmp_path / "run", "--folds", "2", "--baselines", *sets(**{**SHORT, **rate, **more}))
    print(recipe, result["pooled"], result["baselines"])


@pytest.mark.timeout(600)
def test_intensities_of_clips_are_learnt(trainable: Trainable, tmp_path: Path) -> None:
    faster = {
        "training__lr": 1e-3,
        "training__batch_size": 8,
        "training__epochs": 25,
        "members__visual__reading__rows": 90,
        "reading__rows": 90,
    }
    result = trainable.train("yu_emi", tmp_path / "run", "--folds", "2", "--baselines", *sets(**faster), clips=True)
    print("emi", result["pooled"], result["baselines"])
