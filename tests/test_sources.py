"""The folder of videos: what is a source, what is refused and why, and that nothing outside it is touched."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import Problem, RequestError, Severity
from pipeline.memo import StatMemo
from pipeline.sources import Found, digest_of, find_sources


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "good.mp4").write_bytes(b"good")
    return folder


def find(folder: Path, **options: Any) -> Found:
    return find_sources(folder, StatMemo(folder.parent / "memo.json"), **options)


def refused(folder: Path, **options: Any) -> Problem:
    """The one problem of a folder whose other file is fine."""
    found = find(folder, **options)
    assert [source.name for source in found.sources] == ["good"]
    (problem,) = found.problems
    return problem


def test_a_source_is_its_stem_and_its_bytes(folder: Path) -> None:
    (folder / "batch1").mkdir()
    (folder / "batch1" / "106.MKV").write_bytes(b"106")
    (folder / "notes.txt").write_text("not a video")
    found = find(folder)
    assert [(source.name, source.path) for source in found.sources] == [
        ("106", folder / "batch1" / "106.MKV"),
        ("good", folder / "good.mp4"),
    ]
    assert [source.digest for source in found.sources] == [hashlib.sha256(b"106").hexdigest(), hashlib.sha256(b"good").hexdigest()]
    assert found.problems == ()


@pytest.mark.parametrize(
    "name",
    [
        "two  words",
        'it\'s "quoted"',
        "-leading-dash",
        "--help",
        "ünïcödé 日本 😀",
        "a;rm -rf $HOME",
        "100%",
        "a.b.c",
        "new\nline",
        "back\\slash",
    ],
)
def test_any_name_that_a_disk_takes_is_a_name(folder: Path, name: str) -> None:
    (folder / f"{name}.mp4").write_bytes(b"x")
    found = find(folder)
    assert name in [source.name for source in found.sources]
    assert found.problems == ()


def test_a_name_that_is_not_utf8_cannot_be_stored(folder: Path) -> None:
    with open(os.path.join(os.fsencode(folder), b"caf\xe9.mp4"), "wb") as file:
        file.write(b"x")
    problem = refused(folder)
    assert str(problem) == rf"{folder}/caf\xe9.mp4: has an unusable name: it is not UTF-8; rename it"
    str(problem).encode()  # and the report itself can be written


def test_a_name_like_a_files_seal_is_refused(folder: Path) -> None:
    (folder / f"sha256:{'0a' * 32}.mp4").write_bytes(b"x")
    assert "has an unusable name: the artifacts that name it would seem to have two checksums; take 'sha256:' out" in str(refused(folder))


def test_hidden_files_and_folders_are_ignored(folder: Path) -> None:
    (folder / "._good.mp4").write_bytes(b"left by another system")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.mp4").write_bytes(b"x")
    assert [source.name for source in find(folder).sources] == ["good"]
    assert find(folder).problems == ()


def test_an_empty_file(folder: Path) -> None:
    (folder / "empty.mp4").touch()
    assert str(refused(folder)) == f"{folder}/empty.mp4: is empty: it has no bytes; fetch it again, or remove it"


@pytest.mark.parametrize("suffix", [".m3u8", ".M3U", ".ffconcat", ".mpd"])
def test_a_playlist(folder: Path, suffix: str) -> None:
    (folder / f"list{suffix}").write_text("/etc/passwd")
    assert "a playlist is not read: a playlist names other files, which may lie anywhere" in str(refused(folder))


def test_a_playlist_does_not_take_its_videos_name(folder: Path) -> None:
    (folder / "good.m3u8").write_text("good.mp4")
    (folder / "good.avi").touch()
    assert sorted(problem.what for problem in find(folder).problems) == ["a playlist is not read", "is empty"]
    assert [source.name for source in find(folder).sources] == ["good"]


def test_a_pipe_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    assert "pipe.mp4: is not a file: it is a pipe, socket or device; remove it from the folder" in str(refused(folder))


def test_a_link_to_a_device_is_no_source(folder: Path) -> None:
    (folder / "zero.mp4").symlink_to("/dev/zero")
    assert "zero.mp4: leads out of the folder: it is a link to /dev/zero" in str(refused(folder))
    assert "zero.mp4: is not a file" in str(refused(folder, follow_links=True))


def test_a_link_out_of_the_folder_is_followed_only_when_allowed(folder: Path) -> None:
    outside = folder.parent / "outside.mp4"
    outside.write_bytes(b"outside")
    (folder / "link.mp4").symlink_to(outside)
    problem = refused(folder)
    assert problem.severity is Severity.ERROR
    assert f"leads out of the folder: it is a link to {outside}; copy what it leads to there, or allow it with --follow-links" in str(
        problem
    )
    found = find(folder, follow_links=True)
    assert {source.name: source.digest for source in found.sources}["link"] == hashlib.sha256(b"outside").hexdigest()
    assert found.problems == ()


def test_a_link_within_the_folder_is_a_source(folder: Path) -> None:
    (folder / "again.mp4").symlink_to("good.mp4")
    found = find(folder)
    assert [source.name for source in found.sources] == ["again", "good"]
    assert len({source.digest for source in found.sources}) == 1


def test_a_videos_folder_that_is_a_link_itself(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert [source.path for source in find(folder.parent / "link").sources] == [folder.parent / "link" / "good.mp4"]


@pytest.mark.parametrize("follow_links", [False, True])
def test_links_that_lead_nowhere_or_round(folder: Path, follow_links: bool) -> None:
    (folder / "broken.mp4").symlink_to("nothing.mp4")
    assert "broken.mp4: cannot be read: No such file or directory" in str(refused(folder, follow_links=follow_links))
    (folder / "broken.mp4").unlink()
    (folder / "round.mp4").symlink_to("round.mp4")
    assert "round.mp4: cannot be read: Too many levels of symbolic links" in str(refused(folder, follow_links=follow_links))


def test_a_linked_folder_is_walked_only_when_allowed(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "106.mp4").write_bytes(b"106")
    (folder / "batch").symlink_to(outside)
    problem = refused(folder)
    assert f"batch: leads out of the folder: it is a link to {outside}" in str(problem)
    assert problem.severity is Severity.WARNING  # nobody said that there are videos in it
    assert [source.name for source in find(folder, follow_links=True).sources] == ["106", "good"]


def test_folders_that_link_in_a_circle_are_walked_once(folder: Path) -> None:
    (folder / "up").symlink_to(folder)
    (folder / "below").mkdir()
    (folder / "below" / "up").symlink_to("../below")
    for follow_links in (False, True):
        found = find(folder, follow_links=follow_links)
        assert [source.name for source in found.sources] == ["good"]
        assert found.problems == ()


def test_of_files_with_one_stem_none_is_taken(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("106.avi", "106.mp4", "sub/106.mkv"):
        (folder / name).write_bytes(b"x")
    found = find(folder)
    assert [source.name for source in found.sources] == ["good"]
    assert [str(problem) for problem in found.problems] == [
        f"{folder}/{name}: the name '106' is taken: 106.avi has that name too, so its labels and rows could be either's; rename one of them"
        for name in ("106.mp4", "sub/106.mkv")
    ]


def test_a_file_that_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, for whom every file opens: the disk's error is played."""
    bad = folder / "bad.mp4"
    bad.write_bytes(b"x")
    opened = Path.open

    def fail(path: Path, *options: Any, **more: Any) -> Any:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return opened(path, *options, **more)

    monkeypatch.setattr(Path, "open", fail)
    assert "bad.mp4: cannot be read: Input/output error; mend its permissions, or fetch it again" in str(refused(folder))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_the_user_may_not_read(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    (folder / "bad.mp4").write_bytes(b"x")
    (folder / "bad.mp4").chmod(0)
    try:
        assert sorted(problem.what for problem in find(folder).problems) == ["cannot be listed", "cannot be read"]
    finally:
        (folder / "closed").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: the error is played, since tests may run as root."""
    (folder / "closed").mkdir()
    listed = os.scandir

    def fail(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", fail)
    assert f"{folder}/closed: cannot be listed: Permission denied; mend its permissions" in str(refused(folder))


def test_a_request_without_videos(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no videos: there is no such folder; give the folder that holds the video files"):
        find(tmp_path / "nowhere")
    with pytest.raises(RequestError, match="no videos: it is not a folder"):
        find(folder / "good.mp4")
    (folder / "good.mp4").unlink()
    with pytest.raises(RequestError, match=r"no videos: no file in it ends in \.3g2 \.3gp .* or the like"):
        find(folder)


def test_reading_tells_how_far_it_is(folder: Path) -> None:
    for i in range(3):
        (folder / f"{i}.mp4").write_bytes(b"x")
    told: list[tuple[int, int]] = []
    find(folder, told=lambda done, of_all: told.append((done, of_all)))
    assert told == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_a_digest_is_remembered_until_the_file_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, memo = folder / "good.mp4", StatMemo(folder.parent / "memo.json")
    os.utime(path, (1e9, 1e9))
    first = digest_of(path, memo)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: pytest.fail("the file was read again"))
        assert digest_of(path, memo) == first
        assert digest_of(folder / ".." / "videos" / "good.mp4", memo) == first
    path.write_bytes(b"GOOD")
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert digest_of(path, memo) == hashlib.sha256(b"GOOD").hexdigest() != first


def test_a_large_file_is_read_in_pieces(folder: Path) -> None:
    data = bytes(range(256)) * (5 << 12)  # 5 MiB: more than one piece, and not a whole number of them
    (folder / "large.mp4").write_bytes(data)
    assert digest_of(folder / "large.mp4", StatMemo(folder.parent / "memo.json")) == hashlib.sha256(data).hexdigest()
