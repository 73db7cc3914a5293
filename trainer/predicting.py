"""What a run's models say of a store: of each trial those that have not learnt from it, averaged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.store import Store
from trainer.after import smoothed, thresholds_by_fold, with_thresholds
from trainer.arrays import Float64
from trainer.checkpoint import read_checkpoint
from trainer.errors import Problem, TrainerError, named
from trainer.fit import CHECKPOINT
from trainer.model import SCORES, Machine, Model, inputs_of, new_network, selection_for
from trainer.objective import Objective
from trainer.pooling import averaged, joined
from trainer.predictions import NO_FOLD, Predicted, Predictions, predictions_on
from trainer.predictions_file import read_predictions
from trainer.recipe import FIRST
from trainer.rows import ArrayRows
from trainer.run_folder import Trained
from trainer.selection import Selection
from trainer.stacking import LeftOut, stack_scores
from trainer.standardiser import load_standardiser
from trainer.tasks import Task, task_of
from trainer.training import STANDARDISER, one_of

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """left_out: trials that every fold has learnt from, of which a score would flatter."""

    predictions: Predictions
    left_out: tuple[str, ...]


def predict(trained: Trained, store: Store, machine: Machine, trials: Sequence[str] | None = None, told: Told | None = None) -> Said:
    """trials: by name, all of the store's where left out. A trial that one fold held out is said by that fold; of one that is in no fold
    the mean over all folds is given.

    Raises TrainerError where the run is not finished, the store's features are not those that it was trained on, or no trial is left.
    """
    wanted = _wanted(store, trials)
    task = task_of(trained.recipe.task, trained.columns)
    unseen = {number: trained.unseen(fold, wanted) for number, fold in enumerate(trained.folds.folds)}
    speakers = {trial: tuple(number for number, names in unseen.items() if trial in names) for trial in wanted}
    left_out = tuple(trial for trial, numbers in speakers.items() if not numbers)
    if len(left_out) == len(wanted):
        why = f"every fold of the run has learnt from {named(left_out)}"
        raise TrainerError(Problem(what="nothing to predict", where=str(store.folder), why=why, fix="give a store with other trials"))
    parts = {}
    for number, names in unseen.items():
        if names:
            parts[number] = _fold(trained, store, task, number, names, machine)
            if told is not None:
                told(f"fold {number}: {len(names)} trials")
    predictions = _together(parts, speakers)
    predictions = with_thresholds(smoothed(trained.recipe.after, predictions), _thresholds(trained))
    made_by = {"run": str(trained.folder.path.absolute()), "recipe": trained.recipe.name, "store": str(store.folder.absolute())}
    return Said(predictions=dataclasses.replace(predictions, made_by=made_by), left_out=left_out)


def _wanted(store: Store, trials: Sequence[str] | None) -> dict[str, str]:
    source = dict(zip(store.index.trials, store.index.source, strict=True))
    names = list(source) if trials is None else list(trials)
    if missing := [name for name in names if name not in source]:
        why, fix = f"it has {len(source)} others", "see `affectpipe inspect STORE`"
        raise TrainerError(Problem(what=f"no trial {named(missing)}", where=str(store.folder), why=why, fix=fix))
    return {name: source[name] for name in names}


def _together(parts: Mapping[int, Predictions], speakers: Mapping[str, tuple[int, ...]]) -> Predictions:
    """Trials that the same folds have predicted are averaged together."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for trial, numbers in speakers.items():
        if numbers:
            groups.setdefault(numbers, []).append(trial)
    together = []
    for numbers, trials in groups.items():
        same = [_only(parts[number], trials) for number in numbers]
        together.append(same[0] if len(same) == 1 else averaged(same))
    return joined(together)


def _only(predictions: Predictions, trials: Sequence[str]) -> Predictions:
    """Of these trials, in the predictions' order."""
    wanted = set(trials)
    numbers = [i for i, trial in enumerate(predictions.trials) if trial in wanted]
    starts, stops = predictions.offsets[numbers], predictions.offsets[np.array(numbers) + 1]
    taken = np.concatenate([np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)])
    return dataclasses.replace(
        predictions,
        trials=tuple(predictions.trials[i] for i in numbers),
        offsets=np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64),
        **{name: getattr(predictions, name)[taken] for name in ("frame", "times_s", "values", "valid")},
        fold=predictions.fold[numbers],
        thresholds=None if predictions.thresholds is None else predictions.thresholds[numbers],
    )


def _fold(trained: Trained, store: Store, task: Task, number: int, trials: tuple[str, ...], machine: Machine) -> Predictions:
    scores = _stacked(trained, store, task, number, trials, machine) if trained.recipe.stack is not None else None
    held = set(trained.folds.folds[number].validation)
    parts = []
    for member in trained.recipe.members:
        selection = selection_for(store, trained.features[member], None, scores).of(trials)
        model = load_model(trained, member, number, task, selection, machine)
        predicted = model.predict(selection, machine)
        folded = {trial: dataclasses.replace(one, fold=number if trial in held else NO_FOLD) for trial, one in predicted.items()}
        parts.append(predictions_on(store.index, task, folded, per_trial=model.learner.reading.per == "clip"))
    fold = parts[0].fold
    return dataclasses.replace(one_of(parts, number), fold=fold)


def _stacked(trained: Trained, store: Store, task: Task, number: int, trials: tuple[str, ...], machine: Machine) -> ArrayRows:
    stack = trained.recipe.stack
    assert stack is not None
    selection = selection_for(store, trained.features[FIRST], None)

    def say(left_out: LeftOut, asked: tuple[str, ...]) -> Mapping[str, Predicted]:
        model = load_model(trained, FIRST, number, task, selection, machine, left_out=left_out)
        return model.predict(selection.of(asked), machine)

    return stack_scores(store.index, tuple(() for _ in range(stack.folds)), trials, len(task.columns), say)


def load_model(
    trained: Trained, member: str, fold: int, task: Task, selection: Selection, machine: Machine, *, left_out: LeftOut = ()
) -> Model:
    """A member of a fold, or the first model that has not seen some parts. Raises TrainerError where it is not there, not
    finished or damaged, and where the features are not those that it was trained on."""
    learner = trained.recipe.learners[member]
    folder = trained.folder.first(fold, left_out) if member == FIRST else trained.folder.model(fold, member)
    found = read_checkpoint(folder / CHECKPOINT, machine.device)
    if found is None or not found.finished:
        why, fix = "its training was not begun" if found is None else "its training was ended", "run the same `affectpipe train` again"
        raise TrainerError(Problem(what="is not trained", where=str(folder), why=why, fix=fix))
    standardiser = load_standardiser(folder / STANDARDISER) if learner.reading.standardise else None
    network = new_network(learner, inputs_of(selection.dims, trained.features[member], learner, task))
    try:
        network.load_state_dict(found.best["weights"])
    except (RuntimeError, KeyError, TypeError) as error:
        dims = ", ".join(f"{name} {dim}" for name, dim in selection.dims.items() if name != SCORES)
        why = f"the store's features are {dims}: {str(error).splitlines()[-1].strip()[:200]}"
        fix = "give a store whose features are those that the run was trained on"
        raise TrainerError(Problem(what="weights do not fit", where=str(folder / CHECKPOINT), why=why, fix=fix)) from error
    network.to(machine.device).eval()
    return Model(
        learner=learner,
        features=trained.features[member],
        objective=Objective(learner.loss, task),
        network=network,
        standardiser=standardiser,
    )


def _thresholds(trained: Trained) -> dict[int, Float64]:
    """Of each fold, where they were tuned."""
    if not trained.recipe.after.thresholds:
        return {}
    return thresholds_by_fold(read_predictions(trained.folder.predictions))
