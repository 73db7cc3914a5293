"""Trials: labels and videos brought together, and one line for each that has no other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.annotations import LabelSet, TrialLabels
from pipeline.errors import Problem, Severity
from pipeline.sources import Found, Source
from pipeline.trials import Failure, Trial, make_trials


def found(*names: str, bad: tuple[str, ...] = ()) -> Found:
    sources = tuple(Source(name=name, path=Path("videos", f"{name}.mp4"), digest=f"digest of {name}") for name in names)
    return Found(sources=sources, problems=tuple(Problem(what="is empty", where=f"videos/{name}", why="", fix="") for name in bad))


def label_set(*trials: str, task: str = "va", split: str = "", problems: tuple[Problem, ...] = ()) -> LabelSet:
    return LabelSet(labels=tuple(record(trial, task, split) for trial in trials), problems=problems)


def record(trial: str, task: str = "va", split: str = "") -> TrialLabels:
    values = np.zeros((1, 1), np.float32)
    return TrialLabels(
        trial=trial,
        task=task,
        columns=("x",),
        frame=np.zeros(1, np.int64),
        values=values,
        valid=values == 0,
        split=split,
        path=Path(f"labels/{trial}.txt"),
    )


def said(failures: tuple[Failure, ...]) -> list[tuple[str, str, str]]:
    return [(failure.trial, failure.stage, failure.problem.what) for failure in failures]


def who(trials: tuple[Trial, ...]) -> list[tuple[str, str, str]]:
    return [(trial.name, trial.source.name, trial.person) for trial in trials]


def test_without_labels_every_source_is_a_trial() -> None:
    trials, failures = make_trials(found("b", "a_left", bad=("c.mp4",)), None)
    assert sorted(who(trials)) == [("a_left", "a_left", "main"), ("b", "b", "main")]
    assert said(failures) == [("c", "source", "is empty")]
    assert all(trial.labels == () and trial.split == "" for trial in trials)


def test_two_people_share_a_source() -> None:
    trials, failures = make_trials(found("video5"), label_set("video5_left", "video5_right"))
    assert who(trials) == [("video5_left", "video5", "left"), ("video5_right", "video5", "right")]
    assert failures == ()


def test_both_people_and_the_main_one() -> None:
    trials, failures = make_trials(found("video5"), label_set("video5", "video5_left"))
    assert who(trials) == [("video5", "video5", "main"), ("video5_left", "video5", "left")]
    assert failures == ()


def test_a_video_of_the_whole_name_comes_first() -> None:
    trials, failures = make_trials(found("v", "v_left"), label_set("v_left"))
    assert who(trials) == [("v", "v", "main"), ("v_left", "v_left", "main")]
    assert said(failures) == [("v", "labels", "has no labels")]
    assert failures[0].problem.severity is Severity.WARNING


def test_a_trial_holds_every_task_and_the_first_split() -> None:
    labels = LabelSet(labels=(record("a"), record("a", "expr", "train"), record("b", "expr", "validation")), problems=())
    trials, _ = make_trials(found("a", "b"), labels)
    assert [[one.task for one in trial.labels] for trial in trials] == [["va", "expr"], ["expr"]]
    assert [trial.split for trial in trials] == ["train", "validation"]


def test_labels_without_a_video_and_a_video_without_labels() -> None:
    trials, failures = make_trials(found("a", "test_video"), label_set("a", "gone"))
    assert who(trials) == [("a", "a", "main"), ("test_video", "test_video", "main")]
    assert said(failures) == [("gone", "labels", "there is no video for the labels of 'gone'"), ("test_video", "labels", "has no labels")]
    assert [failure.problem.severity for failure in failures] == [Severity.ERROR, Severity.WARNING]
    assert str(failures[0].problem).startswith("labels/gone.txt: there is no video")


def test_a_bad_video_has_one_line_and_its_labels_none() -> None:
    trials, failures = make_trials(found("a", bad=("b.mp4", "c.mp4")), label_set("a", "b", "c_left", "c_right"))
    assert who(trials) == [("a", "a", "main")]
    assert said(failures) == [("b", "source", "is empty"), ("c", "source", "is empty")]


def test_a_bad_label_file_has_one_line_and_its_video_is_still_done() -> None:
    problem = Problem(what="not a number", where="labels/train/a.txt:17", why="", fix="")
    trials, failures = make_trials(found("a"), label_set(problems=(problem,)))
    assert who(trials) == [("a", "a", "main")]
    assert said(failures) == [("a", "labels", "not a number")]


def test_the_trial_of_a_place_is_its_files_stem() -> None:
    wheres = ["labels/a.b.txt:3", "a:12.mp4", "videos/-x 'y' \"ü\".mp4", "videos/back\\slash.mp4", "videos/no_suffix", "labels/t:x.txt:9"]
    _, failures = make_trials(Found(sources=(), problems=tuple(Problem(what="", where=where, why="", fix="") for where in wheres)), None)
    assert [failure.trial for failure in failures] == ["a.b", "a:12", "-x 'y' \"ü\"", "back\\slash", "no_suffix", "t:x"]
