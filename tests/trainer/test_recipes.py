"""The recipes that are ours: what each paper says is in them, number for number."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from trainer.recipe import RECIPES, Learner, Recipe, known_recipes, load_recipe

OURS = (
    "demo",
    "nguyen_au",
    "nguyen_va",
    "praveen_clip",
    "praveen_rja",
    "praveen_rja_released",
    "yu_emi",
    "yu_va",
    "zhou_au",
    "zhou_expr",
    "zhou_va",
)


def only(recipe: Recipe) -> Learner:
    assert tuple(recipe.members) == ("model",)
    return recipe.members["model"]


def params_of(learner: Learner, *names: str) -> tuple[object, ...]:
    return tuple(getattr(learner.params, name) for name in names)


def test_which_there_are() -> None:
    assert known_recipes() == OURS
    assert {path.name for path in RECIPES.iterdir()} == {f"{name}.yaml" for name in OURS}


@pytest.mark.parametrize("name", OURS)
def test_each_loads_and_reads_back_the_same(name: str, tmp_path: Path) -> None:
    """By its name, by its file, and written out."""
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(str(RECIPES / f"{name}.yaml")) == recipe
    (tmp_path / "again.yaml").write_text(recipe.text, encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.yaml"), name=name) == recipe
    assert list(yaml.safe_load(recipe.text)) == list(yaml.safe_load((RECIPES / f"{name}.yaml").read_text(encoding="utf-8")))


def test_yu_va() -> None:
    """Yu et al., ABAW6 VA: VGGish and MFCC, IResNet-50; the last frame for a missing face; four layers, dropout 0.4, tanh; six folds."""
    recipe = load_recipe("yu_va")
    learner = only(recipe)
    assert (learner.features.audio, learner.features.visual) == (("vggish", "mfcc39"), ("iresnet",))
    assert (learner.reading.rows, learner.reading.stride, learner.reading.fill) == (300, 200, "previous")
    assert learner.system == "tcn_transformer"
    assert params_of(learner, "layers", "dropout", "head_norm") == (4, 0.4, True)
    # of the ABAW3 code whose preprocessing they follow
    assert params_of(learner, "audio_channels", "visual_channels") == ((64, 64, 32, 32), (256, 256, 128, 128))
    assert params_of(learner, "kernel", "tcn_dropout", "negative_slope", "causal") == (5, 0.1, 0.01, True)
    assert (recipe.task, learner.loss.name, learner.loss.output) == ("va", "ccc", "tanh")
    assert (recipe.folds.scheme, recipe.folds.n) == ("official_first", 6)
    assert (recipe.after.smooth, recipe.after.width_rows) == ("mean", (31.0,))


ZHOU = {
    "zhou_va": ("va", ("wav2vec2",), ("efficientnet", "dan_rafdb", "dan_affectnet"), "ccc"),
    "zhou_expr": ("expr", (), ("efficientnet", "dan_affectnet"), "cross_entropy"),
    "zhou_au": ("au", (), ("efficientnet", "dan_rafdb", "dan_affectnet"), "bce"),
}


@pytest.mark.parametrize("name", ZHOU)
def test_zhou(name: str) -> None:
    """Zhou et al., ABAW5: w = 300, s = 200, the closest frame for a missing face; three blocks; AdamW at 3e-5, decay 1e-5, batches of 32,
    dropout 0.3, a cosine after an epoch of warm-up; five folds, the first the official split."""
    task, audio, visual, loss = ZHOU[name]
    recipe = load_recipe(name)
    learner = only(recipe)
    assert (recipe.task, learner.features.audio, learner.features.visual) == (task, audio, visual)
    assert (learner.reading.rows, learner.reading.stride, learner.reading.fill) == (300, 200, "nearest")
    assert learner.system == "tcn_transformer"
    assert [len(channels) for channels in (learner.params.audio_channels, learner.params.visual_channels)] == [3, 3]
    assert params_of(learner, "dropout", "tcn_dropout") == (0.3, 0.3)
    assert (learner.loss.name, learner.loss.output, learner.loss.weights) == (loss, "linear", "none")
    training = learner.training
    assert (training.optimiser, training.lr, training.weight_decay, training.batch_size) == ("adamw", 3e-5, 1e-5, 32)
    assert training.schedule == "warmup_cosine"
    assert (recipe.folds.scheme, recipe.folds.n) == ("official_first", 5)


def test_nguyen_va() -> None:
    """Nguyen et al., ABAW3: a GRU of 2 layers of 256 beside a Transformer of 8 heads, 3 layers, 1024, dropout 0.3; then a GRU of 4 of
    256 and two local attentions on the ten scores of five folds. Adam 1e-3, warm restarts, 25 epochs."""
    recipe = load_recipe("nguyen_va")
    second, stack = only(recipe), recipe.stack
    assert stack is not None
    first = stack.first
    assert (recipe.task, stack.folds) == ("va", 5)
    assert (first.features.audio, first.features.visual) == ((), ("regnet",))
    assert first.system == "gru_transformer"
    assert params_of(first, "gru_layers", "gru_hidden", "layers", "heads", "feed_forward", "dropout") == (2, 256, 3, 8, 1024, 0.3)
    assert (second.features.audio, second.features.visual) == ((), ()), "the second stage reads the scores and nothing else"
    assert second.system == "gru_attention"
    assert params_of(second, "gru_layers", "gru_hidden", "attentions") == (4, 256, 2)
    for learner in (first, second):
        training = learner.training
        assert (training.optimiser, training.lr, training.epochs, training.schedule) == ("adam", 1e-3, 25, "warm_restarts")
        assert learner.loss.name == "ccc"
    assert first.training.keep == "last", "the best epoch by a held-out part would leak its labels"


def test_nguyen_au() -> None:
    """Nguyen et al., ABAW3: T1's output as target of T2, focal loss, SGD whose 0.9 is momentum, warm restarts, 20 epochs."""
    recipe = load_recipe("nguyen_au")
    learner = only(recipe)
    assert (recipe.task, learner.features.audio, learner.features.visual) == ("au", (), ("regnet",))
    assert learner.system == "two_transformers"
    assert params_of(learner, "branches", "target", "fuse", "expansion") == ("both", "t1", "mean", 1.5)
    assert params_of(learner, "layers", "heads", "feed_forward", "dropout") == (3, 8, 1024, 0.3)
    training = learner.training
    assert (training.optimiser, training.momentum, training.epochs, training.schedule) == ("sgd", 0.9, 20, "warm_restarts")
    assert (learner.loss.name, learner.loss.gamma) == ("binary_focal", 2.0)


def test_the_ablations_of_nguyen_au() -> None:
    """Table 3, by --set."""
    sets = {
        ("model.branches=t1",): {"branches": "t1"},
        ("model.target=features",): {"target": "features"},
        ("model.fuse=vote",): {"fuse": "vote"},
    }
    for said, expected in sets.items():
        assert {name: getattr(only(load_recipe("nguyen_au", said)).params, name) for name in expected} == expected
    loss = only(load_recipe("nguyen_au", ["loss.name=bce", "loss.weights=balanced"])).loss
    assert (loss.name, loss.weights) == ("bce", "balanced")


def test_yu_emi() -> None:
    """Yu et al., ABAW6 EMI: 300 rows per clip; a TCN of kernel 3 and five layers to 128, of what is seen an encoder of two blocks and four
    heads; apart, MSE, Adam 3e-5, batches of 128, halved after ten epochs; averaged."""
    recipe = load_recipe("yu_emi")
    assert (recipe.task, tuple(recipe.members)) == ("emi", ("visual", "audio"))
    visual, audio = recipe.members["visual"], recipe.members["audio"]
    assert (visual.features.audio, visual.features.visual) == ((), ("resnet18", "openface"))
    assert (audio.features.audio, audio.features.visual) == (("wav2vec2",), ())
    assert params_of(visual, "layers", "heads") == (2, 4)
    assert params_of(audio, "layers") == (0,)
    assert (visual.reading.discard, audio.reading.discard) == (True, False), "frames without a face are left out"
    for member in (visual, audio):
        assert member.system == "clip_tcn"
        assert params_of(member, "d_model", "blocks", "kernel") == (128, 5, 3)
        assert (member.reading.per, member.reading.rows) == ("clip", 300)
        assert (member.loss.name, member.loss.output) == ("mse", "linear")
        training = member.training
        assert (training.optimiser, training.lr, training.batch_size) == ("adam", 3e-5, 128)
        assert (training.schedule, training.plateau_epochs) == ("plateau", 10)


def test_praveen_rja() -> None:
    """Praveen et al., ICASSP 2023: t = 2 and both BLSTMs in the best row of table 1, whose others are by --set."""
    recipe = load_recipe("praveen_rja")
    learner = only(recipe)
    assert (recipe.task, learner.system, learner.loss.name) == ("va", "joint_attention", "ccc")
    assert (learner.features.audio, learner.features.visual) == (("spectrogram",), ("clips",))
    assert (learner.reading.rows, learner.reading.step, learner.reading.stride) == (16, 32, 16)
    assert params_of(learner, "iterations", "u_blstm", "j_blstm") == (2, True, True)
    for t in (1, 2, 3, 4):
        sets = [f"model.iterations={t}", "model.u_blstm=false", "model.j_blstm=false"]
        assert params_of(only(load_recipe("praveen_rja", sets)), "iterations", "u_blstm", "j_blstm") == (t, False, False)
    released = only(load_recipe("praveen_rja_released"))
    assert (released.system, released.reading.standardise) == ("released_joint_attention", False)
    assert params_of(released, "iterations") == (1,)
    assert (released.reading.rows, released.training) == (learner.reading.rows, learner.training), "compared on equal terms"


def test_praveen_clip() -> None:
    """Their Fatigue data: one number for 10 to 15 minutes."""
    recipe = load_recipe("praveen_clip")
    learner = only(recipe)
    assert (recipe.task, learner.system, learner.reading.per) == ("fatigue", "joint_attention", "clip")
    assert learner.loss.name == "mse"
    assert load_recipe("praveen_clip", ["task=engagement"]).task == "engagement"
