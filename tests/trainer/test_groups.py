"""Who belongs together: by name, by source, by a file of subjects."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import TrainerError
from trainer.groups import group_trials, read_subjects, subject_of


@pytest.mark.parametrize(
    ("trial", "subject"),
    [
        ("106", "106"),
        ("106-30-720x1280", "106-30-720x1280"),  # not 106, of whose name it has the beginning
        ("10-60-1280x720", "10-60-1280x720"),
        ("10-60-1280x720-2", "10-60-1280x720"),
        ("10-60-1280x720_right", "10-60-1280x720"),
        ("122-60-1920x1080-5_left", "122-60-1920x1080"),
        ("video45", "video45"),
        ("video45_3", "video45"),
        ("video4", "video4"),
        ("video5_left", "video5"),
        ("video86_1_right", "video86"),
        ("my_leftovers", "my_leftovers"),
        ("clip_7", "clip_7"),  # not a name of theirs
        ("00123", "00123"),
    ],
)
def test_subjects_by_name(trial: str, subject: str) -> None:
    assert subject_of(trial) == subject


def test_groups_are_joined_through_each_other() -> None:
    """A copy of one trial's video under another name brings that name's whole subject along."""
    trials = ["video1_2", "b", "video1_1", "a", "c"]
    sources = ["x", "y", "z", "x", "w"]  # a shows what video1_2 shows
    assert group_trials(trials, sources) == (("a", "video1_1", "video1_2"), ("b",), ("c",))
    assert group_trials(trials, sources, {"c": "anna", "b": "anna"}) == (("a", "video1_1", "video1_2"), ("b", "c"))
    apart = {"video1_1": "one", "video1_2": "two"}  # the file of subjects has the say over names, but not over sources
    assert group_trials(trials, sources, apart) == (("a", "video1_2"), ("b",), ("c",), ("video1_1",))
    assert group_trials(["106", "z"], ["x", "y"], {"z": "106"}) == (("106",), ("z",))  # a subject's name is not a trial's


def test_a_file_of_subjects(tmp_path: Path) -> None:
    file = tmp_path / "subjects.csv"
    file.write_text('\ufeffage,Subject,Trial\r\n30,anna,106\r\n31,"bert, the second",video1_2\r\n\r\n30,anna,106\r\n', encoding="utf-8")
    assert read_subjects(file) == {"106": "anna", "video1_2": "bert, the second"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", r"subjects\.csv:1: has an unknown header: expected the columns trial and subject, found ''; write a line `trial,subject`"),
        (b"trial,person\n1,anna\n", "subjects.csv:1: has an unknown header: .* found 'trial,person'"),
        (b"trial,subject\n1,anna\n2\n", "subjects.csv:3: has a row without a trial or a subject: found '2'"),
        (b"trial,subject\n1,\n", "subjects.csv:2: has a row without a trial or a subject: found '1,'"),
        (b"trial,subject\n1,anna\n1,bert\n", "subjects.csv:3: trial 1 has two subjects: 'anna' and 'bert'"),
        (b"trial,subject\n\xff,anna\n", "subjects.csv: cannot be read: 'utf-8' codec"),
        (b'trial,subject\n"1,anna\n', "subjects.csv: cannot be read: unexpected end of data"),
    ],
)
def test_a_bad_file_of_subjects(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "subjects.csv").write_bytes(content)
    with pytest.raises(TrainerError, match=text):
        read_subjects(tmp_path / "subjects.csv")
    with pytest.raises(TrainerError, match="cannot be read: No such file"):
        read_subjects(tmp_path / "nothing.csv")
