"""Files become visible whole or not at all, and what is remembered of a file lasts as long as the file stays as it is."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import PassingError
from pipeline.memo import StatMemo
from pipeline.publish import TEMPORARY, publish_text, published, sweep


def age(path: Path, by_s: float = 3600.0) -> os.stat_result:
    """Make a file look as if it had not been touched for a while."""
    os.utime(path, (time.time() - by_s, time.time() - by_s))
    return path.stat()


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.txt"
    with published(target) as temporary:
        assert temporary.parent == target.parent
        temporary.write_text("half")
        assert not target.exists()
        temporary.write_text("whole")
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    publish_text(target, "old")
    before = target.stat()

    def write() -> None:
        with published(target) as temporary:
            temporary.write_text("half of the ne")
            raise KeyError("in the middle")

    with pytest.raises(KeyError, match="in the middle"):
        write()
    assert target.read_text() == "old"
    assert (target.stat().st_mtime_ns, target.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert list(tmp_path.iterdir()) == [target]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.publish import published
with published(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_nothing_visible(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    done = subprocess.run([sys.executable, "-c", KILLED, target], cwd=Path(__file__).parents[1], timeout=60, check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(TEMPORARY)
    assert sweep(tmp_path) == 0  # too young: someone might be writing it
    age(left, by_s=7 * 3600)
    assert sweep(tmp_path) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_may_pass(tmp_path: Path) -> None:
    text = rf"{tmp_path}/file\.txt: cannot be written: No space left on device; make room or mend the permissions there"
    with pytest.raises(PassingError, match=text), published(tmp_path / "file.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PassingError, match=r"file/below: cannot be written: (Not a directory|File exists)"):
        publish_text(tmp_path / "file" / "below", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PassingError, match=r"folder: cannot be written: Is a directory"):
        publish_text(tmp_path / "folder", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_nothing_written_is_nothing_published(tmp_path: Path) -> None:
    with pytest.raises(PassingError, match="cannot be written: No such file or directory"), published(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_of_one_target_do_not_meet(tmp_path: Path) -> None:
    with published(tmp_path / "file") as one, published(tmp_path / "file") as two:
        one.write_text("one")
        two.write_text("two")
    assert (tmp_path / "file").read_text() == "one"  # the last to leave
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_takes_old_temporaries_only(tmp_path: Path) -> None:
    below = tmp_path / "stage" / "ab"
    below.mkdir(parents=True)
    old, young, other = below / f"{TEMPORARY}1-1-x.h5", below / f"{TEMPORARY}2-1-x.h5", below / "x.h5"
    for path in (old, young, other):
        path.write_text("x")
    age(old, by_s=1000)
    age(other, by_s=1000)
    assert sweep(tmp_path, older_than_s=500) == 1
    assert sorted(path.name for path in below.iterdir()) == sorted([young.name, other.name])
    assert sweep(tmp_path / "nowhere") == 0


def test_sweep_leaves_what_only_looks_like_a_temporary(tmp_path: Path) -> None:
    """What someone else named so, and what is no file."""
    below = tmp_path / f"{TEMPORARY}1-2-folder"
    below.mkdir()
    for name in (f"{TEMPORARY}mine", f"{TEMPORARY}1-x.h5", f"{TEMPORARY}1-2-", f"x{TEMPORARY}1-2-x"):
        (tmp_path / name).write_text("x")
        age(tmp_path / name)
    (tmp_path / f"{TEMPORARY}3-4-link").symlink_to(tmp_path / f"{TEMPORARY}mine")
    os.utime(tmp_path / f"{TEMPORARY}3-4-link", (0, 0), follow_symlinks=False)
    age(below)
    before = sorted(tmp_path.iterdir())
    assert sweep(tmp_path, older_than_s=500) == 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "video.mp4"
    path.write_bytes(b"bytes")
    age(path)
    return path


def test_a_value_is_remembered_across_clients(tmp_path: Path, file: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    memo.put("video", file.stat(), {"digest": "abc", "n": 3})
    assert memo.get("video", file.stat()) == {"digest": "abc", "n": 3}
    assert memo.get("other", file.stat()) is None
    memo.save()
    later = StatMemo(tmp_path / "memo.json")
    assert later.get("video", file.stat()) == {"digest": "abc", "n": 3}
    assert dict(later.values()) == {"video": {"digest": "abc", "n": 3}}


def grown(file: Path) -> None:
    stat = file.stat()
    file.write_bytes(b"more bytes")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(file: Path) -> None:
    stat, other = file.stat(), file.with_name("other")
    other.write_bytes(b"BYTES")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)


def touched(file: Path) -> None:
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [grown, replaced, touched])
def test_size_inode_and_time_each_end_a_memory(tmp_path: Path, file: Path, change: Any) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    memo.put("video", file.stat(), "abc")
    change(file)
    assert memo.get("video", file.stat()) is None


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, file: Path) -> None:
    file.write_bytes(b"being written")
    memo = StatMemo(tmp_path / "memo.json")
    memo.put("video", file.stat(), "abc")
    assert memo.get("video", file.stat()) is None
    memo.put("video", file.stat(), "abc", settled=True)
    assert memo.get("video", file.stat()) == "abc"


def test_two_clients_keep_each_others_memories(tmp_path: Path, file: Path) -> None:
    path, stat = tmp_path / "memo.json", file.stat()
    first = StatMemo(path)
    first.put("gone", stat, 0)
    first.save()
    one, two = StatMemo(path), StatMemo(path)
    one.put("a", stat, 1)
    one.forget("gone")
    two.put("b", stat, 2)
    two.put("c", stat, 3)
    one.save()
    two.save()
    assert dict(StatMemo(path).values()) == {"a": 1, "b": 2, "c": 3}


def test_a_memory_without_changes_is_not_written(tmp_path: Path) -> None:
    memo = StatMemo(tmp_path / "memo.json")
    memo.forget("never known")
    memo.save()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "null",
        '{"video": null}',
        '{"video": [1, 2, 3]}',
        '{"video": {"a": 1}}',
        "\x00\x00",
        "[" * 100_000,
        '{"video": [',
    ],
)
def test_a_damaged_memory_is_an_empty_one(tmp_path: Path, file: Path, text: str) -> None:
    path = tmp_path / "memo.json"
    path.write_text(text)
    memo = StatMemo(path)
    assert memo.get("video", file.stat()) is None
    memo.put("video", file.stat(), "abc")
    memo.save()
    assert StatMemo(path).get("video", file.stat()) == "abc"
    assert list(json.loads(path.read_text())) == ["video"]


def test_a_memory_that_is_not_text(tmp_path: Path, file: Path) -> None:
    (tmp_path / "memo.json").write_bytes(b'{"video": "\xff\xfe"}')
    assert StatMemo(tmp_path / "memo.json").get("video", file.stat()) is None
