"""Tables beside the videos: which one a trial has, by what it is known, and how it is read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import roots, tables
from pipeline.memo import StatMemo
from pipeline.sources import Source
from pipeline.trials import Trial


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "openface"
    root.mkdir()
    for name in ("106", "106_left", "7"):
        (root / f"{name}.csv").write_text(f"table of {name}")
    return root


def trial(name: str, source: str) -> Trial:
    return Trial(name=name, source=Source(name=source, path=Path(f"{source}.mp4"), digest="0"))


def stage(holds: str) -> Any:
    return SimpleNamespace(extractor=SimpleNamespace(root_holds=holds))


def test_a_trial_has_its_own_table_else_its_videos(root: Path) -> None:
    assert tables.find_table(root, "106_left", "106") == root / "106_left.csv"
    assert tables.find_table(root, "106_right", "106") == root / "106.csv"
    assert tables.find_table(root, "8", "8") is None


def test_what_is_no_regular_file_of_the_root_is_passed_over(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("secret")
    (root / "a.csv").symlink_to(tmp_path / "secret.csv")
    (root / "b.csv").symlink_to("b.csv")
    (root / "c.csv").mkdir()
    os.mkfifo(root / "d.csv")
    (root / "e.csv").symlink_to("7.csv")
    for name in "abcd":
        assert tables.find_table(root, name, name) is None
        assert tables.find_table(root, name, "106") == root / "106.csv"
    assert tables.find_table(root, "e", "e") == root / "e.csv"
    assert tables.find_table(root, "../secret", "../secret") is None


def test_a_root_is_checked_before_anything_runs(root: Path, tmp_path: Path) -> None:
    assert roots.check(stage("tables"), root) is None
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, why in {"nowhere": "No such file or directory", "file": "Not a directory", "empty": "it holds no NAME.csv"}.items():
        problem = roots.check(stage("tables"), tmp_path / name)
        assert problem is not None
        assert (problem.what, problem.where, problem.why) == ("no folder of tables", str(tmp_path / name), why)
    problem = roots.check(stage("pictures"), root)
    assert problem is not None
    assert problem.why == "it holds no folder NAME with NAME/00001.jpg"


def test_the_digest_is_that_of_the_tables_bytes(root: Path, tmp_path: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")

    def digest(name: str, source: str) -> str | None:
        return roots.digest(stage("tables"), root, trial(name, source), memo)

    first = digest("106", "106")
    assert first == digest("106_right", "106") != digest("106_left", "106")
    assert digest("8", "8") is None
    (root / "8.csv").write_bytes((root / "106.csv").read_bytes())
    assert digest("8", "8") == first
    (root / "8.csv").write_text("another")
    assert digest("8", "8") != first


def test_lines_come_one_at_a_time_and_none_is_endless() -> None:
    assert list(tables.lines(io.BytesIO(b"a\nb\r\n\nc"))) == [b"a\n", b"b\r\n", b"\n", b"c"]
    assert list(tables.lines(io.BytesIO(b""))) == []
    pieces = list(tables.lines(io.BytesIO(b"x" * (tables.LONGEST_LINE + 5) + b"\ny\n")))
    assert [len(piece) for piece in pieces] == [tables.LONGEST_LINE, 6, 2]
