"""A folder of bad inputs: the good trials finish, each bad one has its line with what, where and why, and nothing outside is read."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import pytest

from pipeline.sound import ffmpeg_binary

ODD = '-o "dd" it\'s ünïcödé 顔 %d $HOME'
GOOD = {"106", "207", ODD}
LONG_AGO_S = 1_000_000_000


class Canary:
    """A file outside the folder whose time of last reading tells whether anyone opened it."""

    def __init__(self, path: Path, content: Path) -> None:
        self.path = path
        shutil.copyfile(content, path)
        self.arm()

    def arm(self) -> None:
        # A file system that notes times of reading relatively does so when the last one is before the last change.
        os.utime(self.path, (LONG_AGO_S, LONG_AGO_S + 1))

    @property
    def was_read(self) -> bool:
        return self.path.stat().st_atime != LONG_AGO_S


@pytest.fixture
def canary(tmp_path: Path, sample: Any) -> Canary:
    """A good clip outside. Skips where the file system does not note times of reading."""
    made = Canary(tmp_path / "outside.mp4", sample.videos / "video31.mp4")
    made.path.read_bytes()
    if not made.was_read:
        pytest.skip("this file system does not note when a file is read")
    made.arm()
    return made


@pytest.fixture
def folder(tmp_path: Path, sample: Any, canary: Canary) -> Iterator[tuple[Path, Path]]:
    """Videos and labels: three good trials, and all that may be wrong."""
    videos, labels = tmp_path / "videos", tmp_path / "labels"
    videos.mkdir()
    shutil.copytree(sample.labels, labels)
    known = {path.stem: path for path in labels.rglob("*.txt")}
    for name in ("106", "207"):
        shutil.copyfile(sample.videos / f"{name}.mp4", videos / f"{name}.mp4")
    _good_but_oddly_named(sample, videos, known["106-30-416x304"])
    _unreadable(videos)
    _damaged(sample, videos)
    _pointing_outside(videos, canary.path)
    shutil.copyfile(sample.videos / "106.mp4", videos / "unlabelled.mp4")
    shutil.copyfile(sample.videos / "122-60-416x304.mp4", videos / "122-60-416x304.mp4")
    rows = known["122-60-416x304"].read_text(encoding="utf-8")
    known["122-60-416x304"].write_text(rows + "0.1,0.1\n" * 40, encoding="utf-8")
    for name in ("video31", "video5_left", "video5_right", "318-24-416x304", "106-30-416x304"):
        known[name].unlink(missing_ok=True)
    yield videos, labels
    (videos / "locked.mp4").chmod(0o600)


def _good_but_oddly_named(sample: Any, videos: Path, label_file: Path) -> None:
    shutil.copyfile(sample.videos / "106-30-416x304.mp4", videos / f"{ODD}.mp4")
    label_file.rename(label_file.with_name(f"{ODD}.txt"))


def _unreadable(videos: Path) -> None:
    (videos / "empty.mp4").touch()
    (videos / "locked.mp4").write_bytes(b"0" * 1000)
    (videos / "locked.mp4").chmod(0)
    (videos / "dangling.mp4").symlink_to(videos / "nowhere.mp4")
    os.mkfifo(videos / "pipe.mp4")
    (videos / "folder.mp4").mkdir()
    shutil.copyfile(videos / "106.mp4", os.fsencode(videos) + b"/not \xff utf-8.mp4")


def _damaged(sample: Any, videos: Path) -> None:
    (videos / "text.mp4").write_text("this is no video\n" * 100, encoding="utf-8")
    whole = (sample.videos / "106.mp4").read_bytes()
    (videos / "truncated.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    for target, words in (("sound_only.mp4", ("-vn",)), ("streamed.mp4", ("-movflags", "+faststart"))):
        argv = [ffmpeg_binary(), "-v", "error", "-i", sample.videos / "106.mp4", *words, "-c", "copy", videos / target]
        subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)
    streamed = (videos / "streamed.mp4").read_bytes()  # its index comes first, so that it opens, and ends early
    (videos / "streamed.mp4").write_bytes(streamed[: len(streamed) * 6 // 10])


def _pointing_outside(videos: Path, outside: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.5,\n{outside}\n#EXT-X-ENDLIST\n"
    (videos / "list.m3u8").write_text(playlist, encoding="utf-8")
    (videos / "hls.mp4").write_text(playlist, encoding="utf-8")
    (videos / "hls_url.mp4").write_text(playlist.replace(str(outside), f"file://{outside}"), encoding="utf-8")
    (videos / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{outside}'\n", encoding="utf-8")
    (videos / "link_out.mp4").symlink_to(outside)


# Per bad trial: the stage, and a part of what is said of it.
EXPECTED = {
    "empty": ("source", "is empty"),
    "dangling": ("source", "cannot be read"),
    "locked": ("source", "cannot be read"),
    "pipe": ("source", "is not a file"),
    "not \\xff utf-8": ("source", "has an unusable name"),
    "text": ("timeline", "cannot be decoded"),
    "truncated": ("timeline", "cannot be decoded"),
    "streamed": ("timeline", "cut off or damaged"),
    "sound_only": ("timeline", "no video stream"),
    "list": ("source", "a playlist is not read"),
    "hls": ("timeline", "cannot be decoded"),
    "hls_url": ("timeline", "cannot be decoded"),
    "concat": ("timeline", "cannot be decoded"),
    "link_out": ("source", "leads out of the folder"),
    "video44_2": ("labels", "there is no video"),
    "122-60-416x304": ("labels", "rows of va labels for"),
}


def _run(desk: Any, command_path: Path) -> Any:
    """The run, by someone whom permissions hold back: root reads everything unless it gives that up."""
    words = [os.fspath(command_path), *desk.argv("run")]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root reads every file, and setpriv, which can take that away, is not here")
        drop = "-dac_override,-dac_read_search"
        words = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}", *words]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)


def test_each_bad_input_has_its_line(
    folder: tuple[Path, Path], canary: Canary, new_desk: Callable[..., Any], command_path: Path, assert_all_whole: Callable[..., int]
) -> None:
    desk = new_desk(*folder)
    done = _run(desk, command_path)
    assert (done.returncode, "Traceback" in done.stderr + done.stdout) == (1, False), done.stderr
    found = desk.failures()
    errors = {trial: row for trial, row in found.items() if row["severity"] == "error"}
    assert errors.keys() == EXPECTED.keys()
    for trial, (stage, said) in EXPECTED.items():
        row = errors[trial]
        assert row["stage"] == stage, trial
        assert said in f"{row['what']}: {row['why']}", trial
        assert all(row[column] for column in ("what", "where", "why", "fix")), trial
        assert f"error: {trial}: " in done.stderr
    assert found.keys() - errors.keys() == {"207", "unlabelled"}, "warnings: no sound, no labels"
    assert not canary.was_read
    assert_all_whole(desk)
    with h5py.File(desk.store / "index.h5") as index:
        assert set(index["trials"].asstr()[:]) == GOOD | {"unlabelled"}
    with h5py.File(desk.store / "logmel.h5") as file:
        assert len(file["keys"].asstr()[:]) == len(GOOD) + 1
        assert all(file["keys"].asstr()[:]), "every trial of the store has its track"


def test_what_is_said_of_a_trial_is_said_again(folder: tuple[Path, Path], new_desk: Callable[..., Any], command_path: Path) -> None:
    """Failures that would repeat are not tried again, and still named by every later run."""
    desk = new_desk(*folder)
    assert _run(desk, command_path).returncode == 1
    before = desk.failures()
    again = desk.run(status=1)
    assert again["computed"] == {}
    assert {**desk.failures(), "locked": None} == {**before, "locked": None}, "root may read what is locked"
