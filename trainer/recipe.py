"""Recipes: what is learnt from which features, by which system and how. Read whole and checked whole, each problem with its line.

A recipe's sections `features`, `reading`, `model`, `loss` and `training` make one model. Where it has `members`, each of them is a model
of its own, trained apart, and predictions are averaged; a section that a member does not have is the recipe's. With `stack` a first
model's out-of-fold scores are features of the recipe's own. See docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from pipeline.document import Document, Place, load
from pipeline.params import read_params
from trainer.errors import Problem, TrainerError
from trainer.rows import Fill
from trainer.smoothing import Kernel, Smoothing
from trainer.systems import SYSTEMS, system_class

RECIPES = Path(__file__).parent / "recipes"
LossName = Literal["ccc", "mse", "pearson", "cross_entropy", "focal", "bce", "binary_focal"]
WEIGHTED = ("cross_entropy", "focal", "bce")
LEARNER = ("features", "reading", "model", "loss", "training")
FIRST = "first"  # what a stack's first model is called beside the members
SECTIONS = ("version", "task", *LEARNER, "members", "stack", "folds", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Features of a store, in their order: each word is a feature's name, or the name of an extractor and means all of its features.

    What sees and what hears stand apart, so that a store without the paper's own features can give others of the same kind.
    """

    audio: tuple[str, ...] = ()
    visual: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Windows of `rows` rows at `stride`, of every `step`th row, or one sample per clip: see `trainer.data`.

    fill: what stands in for invalid rows. discard: of a clip, leave out the rows that lack a visual feature. standardise: features to
    mean 0 and deviation 1 over the valid rows of the training trials.
    """

    per: Literal["window", "clip"] = "window"
    rows: int = 300
    stride: int = 200
    step: int = 1
    fill: Fill = "nearest"
    longer: Literal["first", "centre", "spaced"] = "spaced"
    discard: bool = False
    standardise: bool = True

    def __post_init__(self) -> None:
        for name in ("rows", "stride", "step"):
            _at_least(name, getattr(self, name), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """output: what becomes of the system's numbers where they are no logits. weights: `balanced` classes or action units, by the training
    labels. gamma, alpha: of the focal losses. See `trainer.losses`."""

    name: LossName
    output: Literal["linear", "tanh", "sigmoid"] = "linear"
    weights: Literal["none", "balanced"] = "none"
    gamma: float = 2.0
    alpha: float | None = None

    def __post_init__(self) -> None:
        _at_least("gamma", self.gamma, 0)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha: expected a share from 0 to 1, got {self.alpha}")
        if self.weights != "none" and self.name not in WEIGHTED:
            raise ValueError(f"weights: expected 'none' with {self.name}, as only {', '.join(WEIGHTED)} take weights, got {self.weights!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How weights are found.

    schedule: of the learning rate. `warmup_cosine` rises over the first epoch and then falls to 0 as a cosine by the last; `warm_restarts`
    falls as a cosine over restart_epochs and begins again, the period growing by restart_growth; `plateau` is halved when the value on the
    held-out trials has not risen for more than plateau_epochs. patience: end after so many epochs without a better value, 0 for never.
    keep: the weights of the best epoch by that value, or the last. clip_norm: of gradients, 0 for none.
    precision: of the network on a GPU; a CPU always computes in float32.
    """

    epochs: int
    lr: float
    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.0
    batch_size: int = 32
    schedule: Literal["constant", "warmup_cosine", "warm_restarts", "plateau"] = "constant"
    restart_epochs: int = 5
    restart_growth: int = 1
    plateau_epochs: int = 10
    patience: int = 0
    keep: Literal["best", "last"] = "best"
    clip_norm: float = 0.0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "restart_epochs", "restart_growth"):
            _at_least(name, getattr(self, name), 1)
        for name in ("weight_decay", "momentum", "patience", "clip_norm", "seed", "plateau_epochs"):
            _at_least(name, getattr(self, name), 0)
        if not self.lr > 0:
            raise ValueError(f"lr: expected a number above 0, got {self.lr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldsSpec:
    """Who is held out: the official validation trials, or each of n parts in turn. See `trainer.splits`."""

    scheme: Literal["official", "k_fold", "official_first"] = "official"
    n: int = 5
    stratify: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("n", self.n, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class After:
    """What is done to predictions: smoothing over rows (one width, or one per target), and thresholds of action units tuned on other
    folds."""

    smooth: Literal["none", "mean", "median", "gaussian"] = "none"
    width_rows: tuple[float, ...] = (0.0,)
    thresholds: bool = False

    def __post_init__(self) -> None:
        try:
            _ = self.smoothing
        except TrainerError as error:
            raise ValueError(f"width_rows: {error.problems[0].why}") from error

    @property
    def smoothing(self) -> Smoothing | None:
        return None if self.smooth == "none" else Smoothing(kernel=Kernel(self.smooth), width_rows=self.width_rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """All that makes one model. params: an instance of the system's Params."""

    features: Features
    reading: Reading
    system: str
    params: Any
    loss: Loss
    training: Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A first model, trained on `folds` parts, 3 or more, of the training trials, whose scores are features of the recipe's own models."""

    folds: int
    first: Learner


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """name: the file's. members: one or more, by name. text: the recipe as YAML, with what was set."""

    name: str
    task: str
    members: Mapping[str, Learner]
    stack: Stack | None
    folds: FoldsSpec
    after: After
    text: str

    @property
    def learners(self) -> dict[str, Learner]:
        """The members, and a stack's first model under its name."""
        return {**self.members, **({FIRST: self.stack.first} if self.stack is not None else {})}


def known_recipes() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in RECIPES.glob("*.yaml")))


def load_recipe(recipe: str, sets: Sequence[str] = (), *, name: str | None = None) -> Recipe:
    """recipe: the name of one of ours, or a file. sets: `training.lr=1e-3` and the like, which override what the file says. name: what it
    is called, the file's name where left out.

    Raises RequestError that lists every problem, each with its line.
    """
    document = _document(recipe)
    for said in sets:
        _set(document, said)
    return _read(document, name or Path(recipe).stem)


def _document(recipe: str) -> Document:
    ours, path = RECIPES / f"{recipe}.yaml", Path(recipe)
    if recipe not in known_recipes() and not path.suffix and not path.exists():
        why, fix = f"ours are {', '.join(known_recipes())}", "name one of them, or a file that ends in .yaml"
        raise TrainerError(Problem(what="no such recipe", where=recipe, why=why, fix=fix))
    document = load(ours if recipe in known_recipes() else path, noun="recipe", option="train RECIPE")
    if not isinstance(document.data, dict):
        document.report((), "a recipe is a mapping", "start with 'version: 1' and 'task:'")
        document.raise_problems()
    return document


def _set(document: Document, said: str) -> None:
    """`a.b=value`: the value as YAML, put where the file would have it."""
    name, equals, text = said.partition("=")
    place: Place = tuple(name.strip().split("."))
    if not equals or not all(place):
        raise TrainerError(
            Problem(what="is no setting", where=f"--set {said}", why="expected key=value", fix="as in --set training.lr=1e-3")
        )
    document.put(place, text, where=f"--set {name.strip()}")


def _read(document: Document, name: str) -> Recipe:
    """Raises RequestError that lists every problem."""
    data: dict[str, Any] = document.data
    for key in data:
        if key not in SECTIONS:
            document.report_unknown((key,), key, list(SECTIONS))
    if data.get("version") != 1 or isinstance(data.get("version"), bool):
        document.report(("version",), f"must be 1, got {data.get('version')!r}", "write 'version: 1'")
    task = data.get("task")
    if not isinstance(task, str):
        document.report(("task",), f"must name a task, got {task!r}", "write 'task: va', or another task of your store")
    members = _members(document, data)
    stack = _stack(document, data)
    _check_inherited(document, data)
    folds = _section(document, ("folds",), FoldsSpec, data.get("folds", {}))
    after = _section(document, ("after",), After, data.get("after", {}))
    document.problems = list(dict.fromkeys(document.problems))  # a section that several members inherit is read for each
    document.raise_problems()
    assert isinstance(task, str)
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)
    return Recipe(name=name, task=task, members=members, stack=stack, folds=folds, after=after, text=text)


def _members(document: Document, data: Mapping[str, Any]) -> dict[str, Learner]:
    if "members" not in data:
        return {"model": _learner(document, (), data, data)}
    nodes = data["members"]
    if not isinstance(nodes, dict) or not nodes:
        document.report(("members",), "must map names to sections", "write 'audio:' below it, with its features and model")
        return {}
    members = {}
    for name, node in nodes.items():
        place = ("members", name)
        if not name.isidentifier():
            document.report(place, "is no name for a folder", "use letters, digits and _")
        if name == FIRST:
            document.report(place, "is the name of a stack's first model", "name the member otherwise")
        if isinstance(node, dict):
            _check_keys(document, place, node, LEARNER)
            members[name] = _learner(document, place, node, data)
        else:
            document.report(place, "must be a mapping", f"write sections below it: {', '.join(LEARNER)}")
    return members


def _stack(document: Document, data: Mapping[str, Any]) -> Stack | None:
    node = data.get("stack")
    if node is None:
        return None
    if not isinstance(node, dict) or not isinstance(node.get("first"), dict):
        document.report(("stack",), "must have 'first'", "write the first model's sections below 'first:'")
        return None
    _check_keys(document, ("stack",), node, ("folds", "first"))
    _check_keys(document, ("stack", "first"), node["first"], LEARNER)
    folds = node.get("folds", 5)
    if not isinstance(folds, int) or isinstance(folds, bool) or folds < 3:
        why = "there are models that have not seen two of them"
        document.report(("stack", "folds"), f"must be 3 or more, got {folds!r}", "write 5", why)
    return Stack(folds=folds, first=_learner(document, ("stack", "first"), node["first"], data))


def _check_inherited(document: Document, data: Mapping[str, Any]) -> None:
    """Sections beside `members` are for those that do not have their own."""
    nodes, stack = data.get("members"), data.get("stack")
    if not isinstance(nodes, dict) or not nodes:
        return
    first = [stack.get(FIRST)] if isinstance(stack, dict) else []
    readers = [node for node in (*nodes.values(), *first) if isinstance(node, dict)]
    for key in LEARNER:
        if key in data and readers and all(key in node for node in readers):
            document.report((key,), "is read by nobody, as every member has its own", f"change members.{next(iter(nodes))}.{key}")


def _check_keys(document: Document, place: Place, node: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in node:
        if key not in known:
            document.report_unknown((*place, key), key, list(known))


def _learner(document: Document, place: Place, node: Mapping[str, Any], above: Mapping[str, Any]) -> Learner:
    """Its sections, or those above it. What cannot be read is reported, and has no value."""
    places = {key: (*place, key) if key in node else (key,) for key in LEARNER}
    said = {key: node.get(key, above.get(key, {})) for key in LEARNER}
    system, params = _model(document, places["model"], said["model"])
    kinds = {"features": Features, "reading": Reading, "loss": Loss, "training": Training}
    read = {key: _section(document, places[key], kind, said[key]) for key, kind in kinds.items()}
    return Learner(system=system, params=params, **read)


def _model(document: Document, place: Place, node: Any) -> tuple[str, Any]:
    if not isinstance(node, dict) or not isinstance(node.get("system"), str):
        document.report(place, "must name a system", f"write 'system: {next(iter(SYSTEMS))}'; known: {', '.join(SYSTEMS)}")
        return "", None
    system = node["system"]
    if system not in SYSTEMS:
        document.report_unknown((*place, "system"), system, list(SYSTEMS), noun="system")
        return system, None
    return system, _section(document, place, system_class(system).Params, node, reserved=("system",))


def _section(document: Document, place: Place, kind: Any, node: Any, reserved: Sequence[str] = ()) -> Any:
    if not isinstance(node, dict):
        document.report(place, "must be a mapping", "write its keys below it, indented")
        return None
    return read_params(document, place, kind, node, reserved)


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ValueError(f"{name}: expected {low} or more, got {value}")
