"""Which ffmpeg is used: the one on the PATH where it works, else imageio-ffmpeg's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from pipeline import sound
from pipeline.errors import RequestError

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
