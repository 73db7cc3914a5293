"""Which ffmpeg is used: the one on the PATH where it works, else imageio-ffmpeg's."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from pipeline import sound
from pipeline.errors import RequestError, TransientError

BROKEN = {
    "fails": "#!/bin/sh\necho ffmpeg version 7.1\nexit 1\n",
    "talks nonsense": "#!/bin/sh\necho hello\n",
    "says nothing": "#!/bin/sh\n",
    "hangs": "#!/bin/sh\nexec /bin/sleep 60\n",
    "is no program": "\0\0\0",
}


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only `ffmpeg` on the PATH, to be written."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sound, "VERSION_S", 1.0)
    sound.ffmpeg_binary.cache_clear()
    sound.decoder_version.cache_clear()
    yield tmp_path / "ffmpeg"
    sound.ffmpeg_binary.cache_clear()
    sound.decoder_version.cache_clear()


def write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def test_the_one_on_the_path_comes_first(on_path: Path) -> None:
    write(on_path, "#!/bin/sh\necho 'ffmpeg version 9.9-mine Copyright'\n")
    assert sound.ffmpeg_binary() == str(on_path)
    assert sound.decoder_version() == "ffmpeg 9.9-mine"


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_one_is_passed_over(on_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(on_path, BROKEN[how])
    other = on_path.with_name("other")
    write(other, "#!/bin/sh\necho ffmpeg version 8.8\n")
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(other))
    assert (sound.ffmpeg_binary(), sound.decoder_version()) == (str(other), "ffmpeg 8.8")


def test_none_that_works(on_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(on_path, BROKEN["fails"])

    def none() -> str:
        raise RuntimeError("no exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    text = r"PATH: there is no ffmpeg that works: .*/ffmpeg: `-version` ended with exit status 1 .*; no exe could be found; install ffmpeg"
    with pytest.raises(RequestError, match=text):
        sound.ffmpeg_binary()


def _end(mark: str, number: int) -> None:
    """Send the signal to this process's child with that word in its command line, as soon as it has put something out."""
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            entry = Path("/proc") / child
            if mark in (entry / "cmdline").read_text() and "\nwchar: 0\n" not in (entry / "io").read_text():
                os.kill(int(child), number)
                return
        time.sleep(0.05)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="ffmpeg's process is looked up in /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_one_that_is_ended_from_outside_says_nothing_of_the_file(number: int) -> None:
    """As all processes of a job that is cancelled are. The sound would be taken for broken, and not tried again."""
    argv = [sound.ffmpeg_binary(), *["-v", "error", "-re", "-f", "lavfi", "-i", "anullsrc", "-t", "60", "-f", "f32le", "pipe:1"]]
    killer = threading.Thread(target=_end, args=("anullsrc", number))
    killer.start()
    with pytest.raises(TransientError, match=r"^106\.mp4: ffmpeg was killed: .*; run again"):
        sound._run(Path("106.mp4"), argv, 1)
    killer.join()
