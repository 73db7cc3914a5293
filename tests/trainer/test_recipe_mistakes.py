"""A recipe's mistakes: each gives one line, with its place and what to do; and what --set may say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline.errors import RequestError
from trainer.errors import TrainerError
from trainer.recipe import Recipe, load_recipe

BASE = """\
version: 1
task: va
features: {audio: [vggish], visual: [onet]}
model: {system: gru_attention, window: 8}
loss: {name: ccc}
training: {epochs: 2, lr: 1e-3}
"""
TCN = "model: {system: tcn_transformer, audio_channels: [4], visual_channels: [6]}"
Load = Callable[..., Recipe]
Complain = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Of a recipe's text."""

    def read(text: str, *sets: str) -> Recipe:
        (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
        return load_recipe(str(tmp_path / "mine.yaml"), sets)

    return read


@pytest.fixture
def complaints(load: Load) -> Complain:
    """All that is said of it."""

    def read(text: str, *sets: str) -> list[str]:
        with pytest.raises(RequestError, match=r"^(mine.yaml:\d+|--set \S+): ") as caught:
            load(text, *sets)
        return str(caught.value).split("\n")

    return read


def replaced(old: str, new: str) -> str:
    assert BASE.count(old) == 1
    return BASE.replace(old, new)


# One mistake each, and all that is said of it.
SINGLE = {
    "a section": (BASE + "trainin: {}\n", "mine.yaml:7: trainin: unknown key; did you mean 'training'?"),
    "a section like no other": (BASE + "x: 1\n", "mine.yaml:7: x: unknown key; known: version, task, features, reading, model, loss,"),
    "a feature's kind": (replaced("audio:", "sound:"), "mine.yaml:3: features.sound: unknown key; known: audio, visual"),
    "of reading": (BASE + "reading: {row: 3}\n", "mine.yaml:7: reading.row: unknown key; did you mean 'rows'?"),
    "of the system": (replaced("window", "windows"), "mine.yaml:4: model.windows: unknown key; did you mean 'window'?"),
    "of another system": (
        replaced("window: 8", "kernel: 3"),
        "mine.yaml:4: model.kernel: unknown key; known: gru_layers, gru_hidden, attentions,",
    ),
    "of the loss": (replaced("name: ccc", "name: ccc, gama: 1"), "mine.yaml:5: loss.gama: unknown key; did you mean 'gamma'?"),
    "of training": (replaced("epochs: 2", "epochs: 2, epoch: 3"), "mine.yaml:6: training.epoch: unknown key; did you mean 'epochs'?"),
    "of folds": (BASE + "folds: {k: 5}\n", "mine.yaml:7: folds.k: unknown key; known: scheme, n, stratify, seed"),
    "of after": (BASE + "after: {widths: [1]}\n", "mine.yaml:7: after.widths: unknown key; did you mean 'width_rows'?"),
    "of stack": (
        BASE + "stack:\n  fold: 5\n  first: {features: {audio: [a]}}\n",
        "mine.yaml:8: stack.fold: unknown key; did you mean 'folds'?",
    ),
    "of the first model": (
        BASE + "stack:\n  first:\n    losses: {}\n",
        "mine.yaml:9: stack.first.losses: unknown key; did you mean 'loss'?",
    ),
    "deep in the first model": (
        BASE + "stack:\n  first:\n    loss: {nam: ccc, name: mse}\n",
        "mine.yaml:9: stack.first.loss.nam: unknown key; did you mean 'name'?",
    ),
    "of a member": (
        BASE + "members:\n  one:\n    folds: {n: 3}\n",
        "mine.yaml:9: members.one.folds: unknown key; known: features, reading, model, loss, training",
    ),
    "deep in a member": (
        BASE + "members:\n  one:\n    reading:\n      rows: 16\n      steps: 3\n",
        "mine.yaml:11: members.one.reading.steps: unknown key; did you mean 'step'?",
    ),
    "text for a number": (
        replaced("1e-3", "fast"),
        "mine.yaml:6: training.lr: input should be a valid number, got 'fast'; give a number",
    ),
    "a fraction for a whole number": (
        replaced("epochs: 2", "epochs: 2.0"),
        "mine.yaml:6: training.epochs: input should be a valid integer, got 2.0; give a whole number",
    ),
    "yes for a number": (
        replaced("epochs: 2", "epochs: true"),
        "mine.yaml:6: training.epochs: input should be a valid integer, got True; give a whole number",
    ),
    "a number for yes": (
        BASE + "folds: {stratify: 1}\n",
        "mine.yaml:7: folds.stratify: input should be a valid boolean, got 1; give true or false",
    ),
    "a text for a list": (
        replaced("[onet]", "onet"),
        "mine.yaml:3: features.visual: input should be a valid array, got 'onet'; give a list",
    ),
    "numbers for names": (
        replaced("[onet]", "[3]"),
        "mine.yaml:3: features.visual: input should be a valid string, got [3]; give a list of",
    ),
    "a number for a list": (
        BASE + "after: {smooth: mean, width_rows: 31}\n",
        "mine.yaml:7: after.width_rows: input should be a valid array, got 31; give a list of a number",
    ),
    "not finite": (replaced("1e-3", ".inf"), "mine.yaml:6: training.lr: not a finite number; write a finite one"),
    "another word": (
        BASE + "reading: {fill: near}\n",
        "mine.yaml:7: reading.fill: input should be 'zero', 'nearest' or 'previous', got 'near'; give zero | nearest | previous",
    ),
    "another loss": (replaced("name: ccc", "name: cc"), "mine.yaml:5: loss.name: input should be 'ccc', 'mse', "),
    "nothing for a section": (BASE + "folds:\n", "mine.yaml:7: folds: must be a mapping; write its keys below it, indented"),
    "a list for a section": (
        replaced("{name: ccc}", "[ccc]"),
        "mine.yaml:5: loss: must be a mapping; write its keys below it, indented",
    ),
    "no epochs": (replaced("epochs: 2, ", ""), "mine.yaml:6: training: lacks 'epochs'; give a whole number"),
    "no loss": (replaced("loss: {name: ccc}\n", ""), "mine.yaml:1: loss: lacks 'name'; give ccc | mse | pearson |"),
    "no channels": (
        replaced("model: {system: gru_attention, window: 8}", TCN.replace("audio_channels: [4], ", "")),
        "mine.yaml:4: model: lacks 'audio_channels'; give a list of a whole number",
    ),
    "no system": (
        replaced("system: gru_attention, ", ""),
        "mine.yaml:4: model: must name a system; write 'system: tcn_transformer'; known: ",
    ),
    "a number for a system": (replaced("gru_attention", "3"), "mine.yaml:4: model: must name a system; "),
    "another system": (
        replaced("gru_attention", "gru_atention"),
        "mine.yaml:4: model.system: unknown system 'gru_atention'; did you mean 'gru_attention'?",
    ),
    "no epoch": (replaced("epochs: 2", "epochs: 0"), "mine.yaml:6: training.epochs: expected 1 or more, got 0; give a value in range"),
    "no rate": (replaced("1e-3", "0"), "mine.yaml:6: training.lr: expected a number above 0, got 0.0; give a value in range"),
    "less than no decay": (
        replaced("epochs: 2", "epochs: 2, weight_decay: -1e-5"),
        "mine.yaml:6: training.weight_decay: expected 0 or more, got -1e-05; give a value in range",
    ),
    "no rows": (BASE + "reading: {rows: 0}\n", "mine.yaml:7: reading.rows: expected 1 or more, got 0; give a value in range"),
    "one fold": (BASE + "folds: {n: 1}\n", "mine.yaml:7: folds.n: expected 2 or more, got 1; give a value in range"),
    "two parts": (
        BASE + "stack: {folds: 2, first: {features: {audio: [a]}}}\n",
        "mine.yaml:7: stack.folds: must be 3 or more, got 2: there are models that have not seen two of them; write 5",
    ),
    "of the system, out of range": (
        replaced("window: 8", "window: 0"),
        "mine.yaml:4: model.window: expected a number above 0, got 0; give a value in range",
    ),
    "half a row": (
        BASE + "after: {smooth: median, width_rows: [1.5]}\n",
        "mine.yaml:7: after.width_rows: expected whole numbers from 0 to 100000, got [1.5]; give a value in range",
    ),
    "gamma below 0": (
        replaced("name: ccc", "name: binary_focal, gamma: -1"),
        "mine.yaml:5: loss.gamma: expected 0 or more, got -1.0; give a value in range",
    ),
    "alpha above 1": (
        replaced("name: ccc", "name: binary_focal, alpha: 25"),
        "mine.yaml:5: loss.alpha: expected a share from 0 to 1, got 25.0; give a value in range",
    ),
    "weights of numbers": (
        replaced("name: ccc", "name: mse, weights: balanced"),
        "mine.yaml:5: loss.weights: expected 'none' with mse, as only cross_entropy, focal, bce take weights, got 'balanced'; ",
    ),
    "version 2": (replaced("version: 1", "version: 2"), "mine.yaml:1: version: must be 1, got 2; write 'version: 1'"),
    "version true": (replaced("version: 1", "version: true"), "mine.yaml:1: version: must be 1, got True; write 'version: 1'"),
    "no version": (replaced("version: 1\n", ""), "mine.yaml:1: version: must be 1, got None; write 'version: 1'"),
    "no task": (replaced("task: va", "task: 3"), "mine.yaml:2: task: must name a task, got 3; write 'task: va', or another task of"),
    "twice": (BASE + "task: au\n", "mine.yaml:7: task: given twice, first on line 2; keep one"),
    "twice within": (replaced("lr: 1e-3", "lr: 1e-3, epochs: 3"), "mine.yaml:6: training.epochs: given twice, first on line 6; keep one"),
    "an alias": (
        replaced("{audio: [vggish], visual: [onet]}", "{audio: &x [onet], visual: *x}"),
        "mine.yaml:3: features.visual: aliases are not supported; write the value out",
    ),
    "a list": ("- version: 1\n", "mine.yaml:1: a recipe is a mapping; start with 'version: 1' and 'task:'"),
    "a word": ("zhou_va\n", "mine.yaml:1: a recipe is a mapping; start with 'version: 1' and 'task:'"),
    "nothing": ("", "mine.yaml:1: a recipe is a mapping; start with 'version: 1' and 'task:'"),
    "no YAML": (BASE + "after: {\n", "mine.yaml:8: is not YAML: expected the node content, but found '<stream end>'; mend the syntax"),
    "no members": (BASE + "members: {}\n", "mine.yaml:7: members: must map names to sections; write 'audio:' below it"),
    "a member of nothing": (BASE + "members: {one: }\n", "mine.yaml:7: members.one: must be a mapping; write sections below it: features,"),
    "no name": (BASE + "members: {a/b: {}}\n", "mine.yaml:7: members.a/b: is no name for a folder; use letters, digits and _"),
    "the first model's name": (
        BASE + "members: {first: {}}\n",
        "mine.yaml:7: members.first: is the name of a stack's first model; name the member otherwise",
    ),
    "no first model": (
        BASE + "stack: {folds: 5}\n",
        "mine.yaml:7: stack: must have 'first'; write the first model's sections below 'first:'",
    ),
    "inherited by two": (
        replaced("1e-3", "-1") + "members:\n  one: {features: {audio: [a]}}\n  two: {features: {audio: [b]}}\n  three: {}\n",
        "mine.yaml:6: training.lr: expected a number above 0, got -1.0; give a value in range",
    ),
    "inherited by nobody": (
        replaced("audio:", "odio:") + "members:\n  one: {features: {audio: [a]}}\n  two: {features: {audio: [b]}}\n",
        "mine.yaml:3: features: is read by nobody, as every member has its own; change members.one.features",
    ),
}


@pytest.mark.parametrize(("text", "expected"), SINGLE.values(), ids=SINGLE.keys())
def test_one_mistake(text: str, expected: str, complaints: Complain) -> None:
    found = complaints(text)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_the_base_is_none(load: Load) -> None:
    assert load(BASE).members["model"].params.window == 8
    assert load(replaced("model: {system: gru_attention, window: 8}", TCN)).members["model"].params.visual_channels == (6,)


def test_several_mistakes_in_the_order_of_lines(complaints: Complain) -> None:
    text = (
        "version: 2\ntask: va\nfeatures: {audio: onet}\nmodel: {system: gru}\nloss: {name: cc}\ntraining:\n"
        "  epochs: two\n  lr: fast\n  rate: 3\nstack:\n  folds: 0\n  first: {features: {sound: []}}\nfolds: {n: 1}\nx: 1\n"
    )
    assert [line.partition(":")[2].split(": ")[:2] for line in complaints(text)] == [
        ["1", "version"],
        ["3", "features.audio"],
        ["4", "model.system"],
        ["5", "loss.name"],
        ["7", "training.epochs"],
        ["8", "training.lr"],
        ["9", "training.rate"],
        ["11", "stack.folds"],
        ["12", "stack.first.features.sound"],
        ["13", "folds.n"],
        ["14", "x"],
    ]


@pytest.mark.parametrize("name", ["zhou_v", "Zhou_va", "nguyen"])
def test_no_such_recipe(name: str) -> None:
    with pytest.raises(TrainerError, match=f"^{name}: no such recipe: ours are demo, nguyen_au, .*zhou_va; name one of them, or a file"):
        load_recipe(name)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"mine.yaml: cannot be read: No such file or directory; give a recipe with train RECIPE$"):
        load_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(RequestError, match=r": cannot be read: Is a directory; give a recipe with train RECIPE$"):
        load_recipe(str(tmp_path))
    (tmp_path / "mine.yaml").write_bytes(b"task: \xff\n")
    with pytest.raises(RequestError, match=r"mine.yaml: is not text: .*; save it as UTF-8$"):
        load_recipe(str(tmp_path / "mine.yaml"))


def test_what_is_set_is_in_the_recipe(load: Load) -> None:
    """Numbers as people write them, lists, and what the file does not have yet."""
    sets = ["training.lr=3e-5", "features.audio=[mfcc39, logmel]", "reading.rows=16", "after.smooth=median", "after.width_rows=[3, 5]"]
    recipe = load(BASE, *sets)
    learner = recipe.members["model"]
    assert learner.training.lr == 3e-5
    assert learner.features.audio == ("mfcc39", "logmel")
    assert learner.features.visual == ("onet",), "what is beside it stays"
    assert learner.reading.rows == 16
    assert (recipe.after.smooth, recipe.after.width_rows) == ("median", (3.0, 5.0))
    said = yaml.safe_load(recipe.text)
    assert said["features"] == {"audio": ["mfcc39", "logmel"], "visual": ["onet"]}
    assert float(said["training"]["lr"]) == 3e-5
    assert load(recipe.text) == recipe
    assert load(BASE, "task=au", "task=expr").task == "expr", "the last one counts"
    assert load(BASE, "features.audio=[]").members["model"].features.audio == ()


def test_what_is_set_of_members_and_the_first_model(load: Load) -> None:
    text = BASE + "members:\n  one: {features: {audio: [a]}}\n  two: {}\nstack: {first: {features: {audio: [b]}}}\n"
    sets = [
        "members.one.features.audio=[c]",
        "members.two.model.system=gru_transformer",
        "stack.first.features.visual=[d]",
        "stack.folds=3",
    ]
    recipe = load(text, *sets)
    assert recipe.members["one"].features.audio == ("c",)
    assert (recipe.members["one"].system, recipe.members["two"].system) == ("gru_attention", "gru_transformer")
    assert recipe.stack is not None
    assert (recipe.stack.folds, recipe.stack.first.features.audio, recipe.stack.first.features.visual) == (3, ("b",), ("d",))
    assert load(recipe.text) == recipe


SETS = {
    "training.lr=fast": "--set training.lr: training.lr: input should be a valid number, got 'fast'; give a number",
    "training.lr=": "--set training.lr: training.lr: input should be a valid number, got None; give a number",
    "training.epochs=0": "--set training.epochs: training.epochs: expected 1 or more, got 0; give a value in range",
    "training.epoch=3": "--set training.epoch: training.epoch: unknown key; did you mean 'epochs'?",
    "training.lr.x=3": "--set training.lr.x: training.lr.x: training.lr is no mapping; name a key that the file could have",
    "task.name=va": "--set task.name: task.name: task is no mapping; name a key that the file could have",
    "features.audio=[a": "--set features.audio: features.audio: '[a' is not YAML: expected ',' or ']', but got '<stream end>'; quote it",
    "x.y=1": "--set x.y: x: unknown key; known: version, task,",
    "model.system=gru": "--set model.system: model.system: unknown system 'gru'; known: tcn_transformer,",
    "stack.first=3": "--set stack.first: stack: must have 'first'; write the first model's sections below 'first:'",
    "members.one.x=3": "--set members.one.x: members.one.x: unknown key; known: features, reading,",
    "folds={scheme: k_fold, k: 3}": "--set folds: folds.k: unknown key; known: scheme, n, stratify, seed",
}


@pytest.mark.parametrize(("said", "expected"), SETS.items(), ids=SETS.keys())
def test_a_mistake_in_what_is_set(said: str, expected: str, complaints: Complain) -> None:
    found = complaints(BASE, said)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


@pytest.mark.parametrize("said", ["training.lr", "=3", ".=3", "training..lr=3", "training.=3"])
def test_what_is_no_setting(said: str, load: Load) -> None:
    with pytest.raises(TrainerError, match=r"^--set .*: is no setting: expected key=value; as in --set training.lr=1e-3$"):
        load(BASE, said)
