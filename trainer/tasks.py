"""The challenge's tasks: what is predicted, in which columns, and by which metric it is judged.

ABAW 10: arXiv 2605.27451; ABAW 6: arXiv 2402.19344. See docs/trainer-metrics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trainer.errors import Problem, TrainerError

VALENCE_AROUSAL = ("valence", "arousal")
EXPRESSIONS = ("Neutral", "Anger", "Disgust", "Fear", "Happiness", "Sadness", "Surprise", "Other")  # ABAW 1 and 2: without Other
ACTION_UNITS = tuple(f"AU{number}" for number in (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26))
EMOTIONS = ("Admiration", "Amusement", "Determination", "Empathic Pain", "Excitement", "Joy")


class Metric(StrEnum):
    """How one target is judged; a task's value is the mean over its targets."""

    CCC = "ccc"  # of each target
    PEARSON = "pearson"  # of each target
    MACRO_F1 = "macro_f1"  # of each class of one label
    BINARY_F1 = "binary_f1"  # of each of several yes-or-no labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is predicted for a task of a store.

    columns: of the predictions; for MACRO_F1 one score per class, in the order of the class numbers, while the label is one number.
    low, high: the legal range of a prediction. title: what papers call the task's value.
    """

    name: str
    columns: tuple[str, ...]
    metric: Metric
    title: str
    low: float = -float("inf")
    high: float = float("inf")

    @property
    def n_labels(self) -> int:
        """How many columns the labels have."""
        return 1 if self.metric is Metric.MACRO_F1 else len(self.columns)


_KNOWN = {
    "va": Task(name="va", columns=VALENCE_AROUSAL, metric=Metric.CCC, title="P_VA", low=-1.0, high=1.0),
    "expr": Task(name="expr", columns=EXPRESSIONS, metric=Metric.MACRO_F1, title="P_EXPR"),
    "au": Task(name="au", columns=ACTION_UNITS, metric=Metric.BINARY_F1, title="P_AU", low=0.0, high=1.0),
    "emi": Task(name="emi", columns=EMOTIONS, metric=Metric.PEARSON, title="P_EMI", low=0.0, high=1.0),
}


def task_of(name: str, columns: Sequence[str] = ()) -> Task:
    """A task by its name in the store, with its own columns or those that are given (seven expressions, eight action units).

    Any other name is a user's regression, judged by the mean CCC of its targets; then columns are needed.
    Raises TrainerError for a task without columns.
    """
    known = _KNOWN.get(name)
    if known is None:
        if not columns:
            why = f"the tasks {', '.join(_KNOWN)} have known columns, others have those of the store's labels"
            raise TrainerError(Problem(what="has no columns", where=f"task {name!r}", why=why, fix="name the columns"))
        return Task(name=name, columns=tuple(columns), metric=Metric.CCC, title="mean CCC")
    if not columns or tuple(columns) == known.columns:
        return known
    return Task(name=name, columns=tuple(columns), metric=known.metric, title=known.title, low=known.low, high=known.high)
