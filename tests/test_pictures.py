"""Organisers' pictures: numbered from 1, read one at a time, known by their bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.memo import StatMemo
from pipeline.pictures import Pictures, check_root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "cropped" / "106"
    folder.mkdir(parents=True)
    for number in (1, 2, 5, 123456):
        (folder / f"{number:05d}.jpg").write_bytes(f"picture {number}".encode())
    settle(folder)
    return folder


def settle(folder: Path, time_s: float = 1e9) -> None:
    """Make everything look as if nobody had written to it for years."""
    for path in (*folder.iterdir(), folder):
        os.utime(path, (time_s, time_s))


def test_image_one_is_frame_nought(folder: Path) -> None:
    pictures = Pictures(folder)
    assert list(pictures) == [0, 1, 4, 123455]
    assert len(pictures) == 4
    assert pictures[4] == b"picture 5"
    assert 2 not in pictures
    with pytest.raises(KeyError, match="2"):
        pictures[2]


def test_other_files_are_no_pictures(folder: Path) -> None:
    for name in ("00000.jpg", "readme.txt", "a7.jpg", "7.jpg.part", ".00007.jpg", "7.gif", "-7.jpg", "1234567890.jpg"):
        (folder / name).write_bytes(b"x")
    (folder / "8.PNG").write_bytes(b"eight")
    assert list(Pictures(folder)) == [0, 1, 4, 7, 123455]


def test_a_trial_without_pictures_has_none(tmp_path: Path) -> None:
    pictures, memo = Pictures(tmp_path / "nobody"), StatMemo(tmp_path / "memo.json")
    assert dict(pictures) == {}
    assert pictures.digest(memo) == pictures.digest(memo)
    assert list(memo.values()) == []


def test_a_link_out_of_the_root_is_not_followed(folder: Path) -> None:
    secret = folder.parent.parent / "secret.jpg"
    secret.write_bytes(b"secret")
    (folder / "00003.jpg").symlink_to(secret)
    (folder / "00004.jpg").symlink_to("00001.jpg")
    (folder / "00006.jpg").symlink_to("00006.jpg")  # to itself
    pictures = Pictures(folder)
    assert 2 not in pictures
    assert pictures[3] == b"picture 1"


def test_the_digest_follows_numbers_and_bytes_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    first = Pictures(folder).digest(memo)
    settle(folder, 1.1e9)
    assert Pictures(folder).digest(memo) == first  # touched only
    moved = folder.with_name("107")
    folder.rename(moved)
    assert Pictures(moved).digest(memo) == first
    (moved / "00002.jpg").rename(moved / "00003.jpg")
    renumbered = Pictures(moved).digest(memo)
    (moved / "00003.jpg").write_bytes(b"PICTURE 2")
    settle(moved, 1.2e9)
    rewritten = Pictures(moved).digest(memo)
    (moved / "00003.jpg").unlink()
    settle(moved, 1.3e9)
    assert len({first, renumbered, rewritten, Pictures(moved).digest(memo)}) == 4


def test_bytes_that_move_from_one_picture_to_the_next_are_another_digest(folder: Path, tmp_path: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    digests = set()
    for one, two in ((b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"a1:2:bc", b"")):
        (folder / "00001.jpg").write_bytes(one)
        (folder / "00002.jpg").write_bytes(two)
        digests.add(Pictures(folder).digest(memo))
    assert len(digests) == 4


def test_pictures_are_read_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    first = Pictures(folder).digest(memo)
    memo.save()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    assert Pictures(folder).digest(StatMemo(tmp_path / "memo.json")) == first


def test_a_picture_replaced_by_one_of_the_same_size_and_time_is_read(folder: Path, tmp_path: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    first = Pictures(folder).digest(memo)
    (tmp_path / "other").write_bytes(b"PICTURE 1")
    (tmp_path / "other").replace(folder / "00001.jpg")
    settle(folder)
    assert Pictures(folder).digest(memo) != first


def test_pictures_of_this_moment_are_not_remembered(folder: Path, tmp_path: Path) -> None:
    """In place, a picture changes without its folder's time changing."""
    memo = StatMemo(tmp_path / "memo.json")
    (folder / "00001.jpg").write_bytes(b"PICTURE 1")
    os.utime(folder, (1e9, 1e9))
    Pictures(folder).digest(memo)
    assert list(memo.values()) == []


def test_what_only_looks_like_a_picture_is_ignored_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (folder / "00006.jpg").mkdir()
    (folder / "00007.jpg").symlink_to("nothing.jpg")
    (folder / "00008.jpg").symlink_to("00008.jpg")
    (folder / "00009.jpg").symlink_to(tmp_path / "secret.jpg")
    os.mkfifo(folder / "00010.jpg")
    (folder / "5.png").write_bytes(b"another picture of frame 4")
    (folder / "readme.txt").write_bytes(b"not like a picture")
    pictures = Pictures(folder)
    assert list(pictures) == [0, 1, 4, 123455]
    assert pictures.ignored == ("00006.jpg", "00007.jpg", "00008.jpg", "00009.jpg", "00010.jpg", "5.png")
    assert len(pictures.digest(StatMemo(tmp_path / "memo.json"))) == 64


def test_a_root_is_checked_before_anything_runs(folder: Path, tmp_path: Path) -> None:
    assert check_root(folder.parent) is None
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    said = {"nowhere": "No such file or directory", "file": "Not a directory", "empty": "it holds no folder NAME with NAME/00001.jpg"}
    for name, why in said.items():
        problem = check_root(tmp_path / name)
        assert problem is not None
        assert (problem.where, problem.why) == (str(tmp_path / name), why)
