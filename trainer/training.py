"""A recipe trained on a store: every fold's models, their predictions of what the fold holds out, and what these are worth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.store import Store, publish_text
from trainer.after import smoothed, thresholds_by_fold, tuned, with_thresholds
from trainer.errors import Problem, TrainerError
from trainer.features import Chosen, choose_features
from trainer.fit import Fitted, fit, seed_of
from trainer.labels import labelled_trials
from trainer.metrics import Score
from trainer.model import SCORES, Machine, Model, inputs_of, new_network, selection_for, task_for
from trainer.objective import Objective, weights_of
from trainer.pooling import averaged, joined
from trainer.predictions import Predicted, Predictions, predictions_on
from trainer.predictions_file import write_predictions
from trainer.recipe import FIRST, Learner, Recipe
from trainer.rows import ArrayRows
from trainer.run_folder import Trained, begin
from trainer.scores import Evaluation, evaluate
from trainer.selection import Selection
from trainer.splits import Fold, Folds, Scheme, make_folds
from trainer.stacking import LeftOut, stack_scores, trials_to_learn_from
from trainer.standardiser import Moments, fit_standardiser, measure_trials
from trainer.tasks import Metric, Task

Told = Callable[[str], None]
Measured = Mapping[str, Mapping[str, Moments]]
STANDARDISER = "standardiser.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """fitted: of each member. evaluation: of the trials that the fold holds out, after smoothing."""

    number: int
    fitted: Mapping[str, Fitted]
    evaluation: Evaluation
    predictions: Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """pooled: all trials that were held out, as one. predictions: of these, each by the fold that held it out."""

    trained: Trained
    folds: tuple[FoldResult, ...]
    pooled: Evaluation
    predictions: Predictions

    @property
    def values(self) -> tuple[float, ...]:
        """Of each fold."""
        return tuple(fold.evaluation.score.value for fold in self.folds)

    @property
    def mean(self) -> float:
        """Over folds."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float | None:
        """The standard deviation over folds (of n - 1), None of one fold."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


def folds_for(recipe: Recipe, store: Store, task: Task, *, folds: str | None = None, subjects: Mapping[str, str] | None = None) -> Folds:
    """folds: `official`, a number of parts, or None for what the recipe says. Of the trials with a label. Raises TrainerError."""
    labelled = labelled_trials(store.index, task.name)
    split = dict(zip(store.index.trials, store.index.split, strict=True))
    trials = [trial for trial in labelled if split[trial] != "test"]
    spec = recipe.folds if folds is None else dataclasses.replace(recipe.folds, scheme="official" if folds == "official" else "k_fold")
    n = int(folds) if folds is not None and folds != "official" else spec.n
    scheme = Scheme(
        n_folds=None if spec.scheme == "official" else n,
        official_first=spec.scheme == "official_first",
        stratify=task.name if spec.stratify else "",
        seed=spec.seed,
    )
    return make_folds(store.index, scheme, trials=trials, subjects=subjects)


def train(
    recipe: Recipe,
    store: Store,
    folder: Path,
    folds: Folds,
    *,
    machine: Machine,
    subjects: Mapping[str, str] | None = None,
    told: Told | None = None,
) -> Result:
    """Trains what is missing in the folder, which then has models, predictions, scores and logs. See docs/formats.md.

    subjects: of trials, as the folds were made with; a stack's parts are too.

    Raises TrainerError (also of the store: StoreError) before anything is written where the recipe does not go with the store, and where
    the folder holds another run; later where a loss is no number or the files cannot be used.
    """
    tell = told or (lambda _: None)
    task = task_for(store, recipe.task)
    check_recipe(recipe, store, task, folds)
    features = {name: choose_features(store, learner.features) for name, learner in recipe.learners.items()}
    for name, chosen in features.items():
        for note in chosen.notes:
            tell(f"{name}: {note}")
    _try_networks(recipe, features, store, task)
    trained = begin(folder, recipe, store, task.columns, features, folds)
    trainer = _Trainer(trained, store, task, machine, subjects, tell)
    results = tuple(trainer.fold(number) for number in range(len(folds.folds)))
    predictions = joined([one.predictions for one in results])
    if recipe.after.thresholds:
        predictions = tuned(predictions, store.index)
        by_fold = thresholds_by_fold(predictions)
        results = tuple(_judged(one, with_thresholds(one.predictions, by_fold), store) for one in results)
    pooled = evaluate(predictions, store.index)
    predictions = dataclasses.replace(predictions, made_by={"recipe": recipe.name, "store": str(store.folder)})
    write_predictions(trained.folder.predictions, predictions)
    result = Result(trained=trained, folds=results, pooled=pooled, predictions=predictions)
    publish_text(trained.folder.scores, json.dumps(as_data(result), indent=1) + "\n")
    return result


def check_recipe(recipe: Recipe, store: Store, task: Task, folds: Folds) -> None:
    """Raises TrainerError where these do not go together."""
    labels = store.index.labels[task.name]
    problems = []
    for learner in recipe.learners.values():
        Objective(learner.loss, task)
    if recipe.after.smoothing is not None:
        recipe.after.smoothing.widths(len(task.columns))
    for name, learner in recipe.learners.items():
        if not (learner.features.audio or learner.features.visual) and (recipe.stack is None or name == FIRST):
            fix = "name some below features.audio or features.visual"
            problems.append(Problem(what="reads no feature", where=f"{recipe.name}, {name}", why="both lists are empty", fix=fix))
        if (learner.reading.per == "clip") != labels.per_trial:
            kinds = {True: "one label per clip", False: "labels per row"}
            why = f"task {task.name!r} has {kinds[labels.per_trial]}"
            fix = f"set reading.per={'clip' if labels.per_trial else 'window'}, or train another task"
            problems.append(Problem(what=f"reading.per is {learner.reading.per}", where=f"{recipe.name}, {name}", why=why, fix=fix))
    if recipe.stack is not None and labels.per_trial:
        why, fix = "scores are features of rows", "leave stack out for this task"
        problems.append(Problem(what="cannot be stacked", where=f"{recipe.name}, stack", why=why, fix=fix))
    if recipe.after.thresholds and (len(folds.folds) < 2 or task.metric is not Metric.BINARY_F1):
        why = "they are tuned on other folds, for action units"
        fix = "ask for two folds or more, or set after.thresholds=false"
        problems.append(Problem(what="thresholds cannot be tuned", where=f"{recipe.name}, after", why=why, fix=fix))
    if problems:
        raise TrainerError(problems)


def _try_networks(recipe: Recipe, features: Mapping[str, Chosen], store: Store, task: Task) -> None:
    """Raises TrainerError where a system cannot take these features: before there is a folder that holds a run of that recipe."""
    for name, learner in recipe.learners.items():
        dims = {feature: store.open_feature(feature).dim for feature in features[name].names}
        if recipe.stack is not None and name != FIRST:
            dims[SCORES] = recipe.stack.folds * len(task.columns)
        new_network(learner, inputs_of(dims, features[name], learner, task))


def _judged(result: FoldResult, predictions: Predictions, store: Store) -> FoldResult:
    return dataclasses.replace(result, predictions=predictions, evaluation=evaluate(predictions, store.index))


def as_data(result: Result) -> dict[str, Any]:
    """For scores.json and --json."""
    folds = [
        {
            "fold": one.number,
            **score_data(one.evaluation.score),
            "members": {name: dataclasses.asdict(fitted) for name, fitted in one.fitted.items()},
        }
        for one in result.folds
    ]
    return {
        "task": result.pooled.score.task.name,
        "pooled": score_data(result.pooled.score),
        "mean": result.mean,
        "spread": result.spread,
        "folds": folds,
    }


def score_data(score: Score) -> dict[str, Any]:
    return {"value": score.value, "targets": dict(score.targets), "n_trials": score.n_trials, "trial_mean": score.trial_mean}


class _Trainer:
    def __init__(
        self, trained: Trained, store: Store, task: Task, machine: Machine, subjects: Mapping[str, str] | None, tell: Told
    ) -> None:
        self.trained, self.store, self.task, self.machine, self.subjects, self.tell = trained, store, task, machine, subjects, tell
        self._measured: dict[str, dict[str, Moments]] = {}

    def fold(self, number: int) -> FoldResult:
        recipe, fold = self.trained.recipe, self.trained.folds.folds[number]
        scores = self._stacked(number, fold) if recipe.stack is not None else None
        fitted, parts = {}, []
        for member, learner in recipe.members.items():
            selection = selection_for(self.store, self.trained.features[member], self.task.name, scores)
            folder, name = self.trained.folder.model(number, member), f"fold {number}, {member}"
            model = self._new_model(member, learner, selection.of(fold.train), folder, name, scores is not None)
            held = selection.of(fold.validation)

            def judge(model: Model, held: Selection = held) -> Score:
                return evaluate(self._predictions(model.predict(held, self.machine), number), self.store.index).score

            fitted[member] = fit(model, selection.of(fold.train), folder, name=name, machine=self.machine, judge=judge, told=self.tell)
            parts.append(self._predictions(model.predict(held, self.machine), number))
        predictions = smoothed(recipe.after, one_of(parts, number))
        evaluation = evaluate(predictions, self.store.index)
        self.tell(f"fold {number}: {self.task.title} {evaluation.score.value:.4f}")
        return FoldResult(number=number, fitted=fitted, evaluation=evaluation, predictions=predictions)

    def _stacked(self, number: int, fold: Fold) -> ArrayRows:
        """Scores of all of the fold's trials."""
        stack = self.trained.recipe.stack
        assert stack is not None
        selection = selection_for(self.store, self.trained.features[FIRST], self.task.name)
        inner = Scheme(n_folds=stack.folds, seed=stack.first.training.seed)
        made = make_folds(self.store.index, inner, trials=fold.train, subjects=self.subjects)
        parts = tuple(part.validation for part in made.folds)

        def predict(left_out: LeftOut, trials: tuple[str, ...]) -> Mapping[str, Predicted]:
            folder, name = self.trained.folder.first(number, left_out), f"fold {number}, first, without {left_out}"
            train = selection.of(trials_to_learn_from(left_out, parts))
            model = self._new_model(FIRST, stack.first, train, folder, name, has_scores=False)
            fit(model, train, folder, name=name, machine=self.machine, told=self.tell)
            return model.predict(selection.of(trials), self.machine)

        return stack_scores(self.store.index, parts, fold.validation, len(self.task.columns), predict)

    def _new_model(self, member: str, learner: Learner, train: Selection, folder: Path, name: str, has_scores: bool) -> Model:
        """Untrained. What is measured is measured on the trials that it is to learn from, once for all folds."""
        standardiser = None
        if learner.reading.standardise:
            standardiser = fit_standardiser(train, None if has_scores else self._measure(train))
            folder.mkdir(parents=True, exist_ok=True)
            standardiser.save(folder / STANDARDISER)
        torch.manual_seed(seed_of(learner.training.seed, name, "weights"))
        inputs = inputs_of(train.dims, self.trained.features[member], learner, self.task)
        weights = weights_of(learner.loss, train, len(self.task.columns))
        return Model(
            learner=learner,
            features=self.trained.features[member],
            objective=Objective(learner.loss, self.task, None if weights is None else weights.to(self.machine.device)),
            network=new_network(learner, inputs),
            standardiser=standardiser,
        )

    def _measure(self, train: Selection) -> Measured:
        for feature in train.features:
            known = self._measured.setdefault(feature, {})
            if new := [trial for trial in train.names if trial not in known]:
                part = dataclasses.replace(train.of(new), features={feature: train.features[feature]})
                known.update(measure_trials(part)[feature])
        return self._measured

    def _predictions(self, predicted: Mapping[str, Predicted], fold: int) -> Predictions:
        named = {trial: dataclasses.replace(one, fold=fold) for trial, one in predicted.items()}
        return predictions_on(self.store.index, self.task, named, per_trial=self.store.index.labels[self.task.name].per_trial)


def one_of(parts: list[Predictions], fold: int) -> Predictions:
    """The mean of the members' predictions."""
    if len(parts) == 1:
        return parts[0]
    return dataclasses.replace(averaged(parts), fold=np.full(len(parts[0].trials), fold, np.int64))
