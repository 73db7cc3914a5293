"""The waveform of a source: mono, resampled, on the video's clock. The filter graph is ffmpeg-python's, the run is ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Bool, Float32, Waveform
from pipeline.errors import Problem, RequestError, TransientError, TrialError
from pipeline.process import KILLED, Process, StalledError
from pipeline.records import CONTAINERS
from pipeline.video import sound_of

STALL_S, VERSION_S = 120.0, 30.0
VERSION = re.compile(rb"ffmpeg version ([!-~]+)")
MAX_S = 12 * 3600.0
READ_BYTES = 1 << 20
STOPPED = 255  # ffmpeg's exit status where a signal ended it


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A waveform and what there is to say of it: warnings for the user, and the headers."""

    waveform: Waveform
    warnings: tuple[str, ...]
    info: dict[str, Any]


@cache
def ffmpeg_binary() -> str:
    """ffmpeg from the PATH, or, where it does not work, the one that imageio-ffmpeg brings. Raises RequestError where neither does."""
    faults = []
    for find in (_from_path, _from_wheel):
        try:
            binary = find()
            _version(binary)
        except _UnusableError as error:
            faults.append(str(error))
            continue
        return binary
    fix = "install ffmpeg, or: pip install 'affectpipe[extract]'"
    raise RequestError(Problem(what="there is no ffmpeg that works", where="PATH", why="; ".join(faults), fix=fix))


class _UnusableError(Exception):
    """There is no such ffmpeg, or it does not say its version."""


def _from_path() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        raise _UnusableError("no ffmpeg on the PATH")
    return found


def _from_wheel() -> str:
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise _UnusableError(str(error)) from error


def _version(binary: str) -> str:
    try:
        done = subprocess.run([binary, "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=VERSION_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnusableError(f"{binary}: {error}") from error
    said = VERSION.match(done.stdout)
    if done.returncode or said is None:
        raise _UnusableError(f"{binary}: `-version` ended with exit status {done.returncode} and said {done.stdout[:60]!r}")
    return said[1].decode()


@cache
def decoder_version() -> str:
    """The decoder's part of a key: ffmpeg's own version word."""
    return f"ffmpeg {_version(ffmpeg_binary())}"


def decode(path: Path, rate_hz: int) -> Sound:
    """The chosen audio stream from the first picture's time on; sample i is heard i / rate_hz seconds after it.

    A source without an audio stream gives no samples and a warning. Raises TrialError where the sound cannot be decoded.
    """
    info = sound_of(path)
    start_s = float(info["first_frame_s"])
    spans = [(max(start - start_s, 0.0), stop - start_s) for start, stop in info["sound_spans_s"] if stop > start_s]
    if not spans:
        why = "no audio stream" if info["audio"] is None else "the audio ends before the first picture"
        empty = Waveform(samples=np.zeros(0, np.float32), rate_hz=rate_hz, valid=np.zeros(0, np.bool_))
        return Sound(waveform=empty, warnings=(f"{why}: its audio features are masked",), info=info)
    if spans[-1][1] > MAX_S:
        raise _trial_error(path, "the sound is too long", f"{spans[-1][1]:.0f} s, at most {MAX_S:.0f} s", "cut the file")
    samples, complaint = _run(path, _arguments(path, info["audio"], start_s, rate_hz), round(spans[-1][1] * rate_hz))
    warnings = (f"ffmpeg complained while decoding the sound: {complaint}",) if complaint else ()
    waveform = Waveform(samples=samples, rate_hz=rate_hz, valid=_sounding(len(samples), rate_hz, spans))
    return Sound(waveform=waveform, warnings=warnings, info=info)


def _arguments(path: Path, stream: int, start_s: float, rate_hz: int) -> list[str]:
    """Timestamps are kept and counted from the first picture; gaps become silence, an early beginning is cut."""
    import ffmpeg

    # threads: lossless formats would be decoded by as many as there are cores
    source = ffmpeg.input(f"file:{path.absolute()}", copyts=None, protocol_whitelist="file", format_whitelist=CONTAINERS, threads=1)
    sound = (
        source[str(stream)]
        .filter("asetpts", f"PTS-({start_s!r})/TB")
        .filter("atrim", start=0)
        # rematrix_maxval: mixed down as for 16-bit sound, so that two full channels do not exceed 1
        .filter("aresample", rate_hz, **{"async": 1, "first_pts": 0, "rematrix_maxval": 1, "ochl": "mono"})
        .filter("aformat", sample_fmts="flt", channel_layouts="mono")
    )
    output = ffmpeg.output(sound, "pipe:1", format="f32le", acodec="pcm_f32le").global_args("-nostdin", "-v", "error")
    return [str(word) for word in ffmpeg.compile(output, cmd=ffmpeg_binary())]


def _run(path: Path, argv: list[str], n_expected: int) -> tuple[Float32, str]:
    """(S,) samples, and what ffmpeg complained of although it went on."""
    limit = (n_expected + 60 * 48_000) * 4
    raw = bytearray()
    try:
        with Process(argv, stall_s=STALL_S) as process:
            while chunk := process.read(READ_BYTES):
                raw += chunk
                if len(raw) > limit:
                    raise _trial_error(path, "the sound does not end", f"over {limit // 4} samples", "make the file again with ffmpeg")
            status, said = process.finish()
    except StalledError as error:
        problem = Problem(what="ffmpeg hangs", where=path.name, why=str(error), fix="run again; if it stays so, leave the file out")
        raise TransientError(problem) from error
    last = said.splitlines()[-1] if said else ""
    if status in (*KILLED, STOPPED):
        why, fix = last or f"exit status {status}", "run again; if it stays so, give it more memory"
        raise TransientError(Problem(what="ffmpeg was killed", where=path.name, why=why, fix=fix))
    if status:
        raise _trial_error(path, "the sound cannot be decoded", last or f"exit status {status}", "make the file again with ffmpeg")
    return np.frombuffer(raw, "<f4").astype(np.float32, copy=False), last


def _sounding(n_samples: int, rate_hz: int, spans: list[tuple[float, float]]) -> Bool:
    """(B,) bool per 10 ms: at least half of it lies in a stretch of sound."""
    valid = np.zeros(-(-n_samples * 100 // rate_hz), np.bool_)
    for start_s, stop_s in spans:
        valid[round(start_s * 100) : round(stop_s * 100)] = True
    return valid


def _trial_error(path: Path, what: str, why: str, fix: str) -> TrialError:
    return TrialError(Problem(what=what, where=path.name, why=why, fix=fix))
