"""Frames and their times, from a decoding process that can be killed. Sequential, frame-exact, a few batches in memory at a time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Bool, Float64, Frames, Int64
from pipeline import decoders
from pipeline.decoders import Decoder, EndedError, LostError, Record
from pipeline.errors import Problem, TransientError, TrialError
from pipeline.process import KILLED, StalledError

STALL_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A whole source's frame times, from 0, and what its headers and its damage say."""

    times_s: Float64
    info: dict[str, Any]


def decoder_version() -> str:
    """The decoder's part of a key."""
    return f"pyav {importlib.metadata.version('av')}"


def probe(path: Path) -> dict[str, Any]:
    """What the headers say of every stream, and which are chosen. Raises TrialError where it is no media file of a known format."""
    return _times_and_closing(path, "probe")[1]


def sound_of(path: Path) -> dict[str, Any]:
    """As `probe`, with first_frame_s and sound_spans_s: [start, stop) of every stretch of the chosen audio stream, container seconds."""
    return _times_and_closing(path, "sound")[1]


def frame_times(path: Path) -> Decoded:
    """Decode the whole video for its presentation times; no picture is converted. Raises TrialError where there is none."""
    times_s, info = _times_and_closing(path, "times")
    damage = info["damage"]
    if "ends_early" in damage:
        why = f"{len(times_s)} frames decoded, then: {damage['ends_early']}"
        raise _trial_error(path, "the file is cut off or damaged", why, "fetch or make the file again")
    if not len(times_s):
        raise _trial_error(path, "no frame can be decoded", damage.get("why", "the video stream is empty"), "fetch or make the file again")
    return Decoded(times_s=times_s, info=info)


def _times_and_closing(path: Path, task: str, *, fresh: bool = False) -> tuple[Float64, dict[str, Any]]:
    found = [b""]
    try:
        with _decoding(path, task, fresh=fresh) as decoder:
            while (record := decoder.receive()).tag == b"t":
                found.append(record.data)
            closing = _closing(path, record)
    except LostError:
        return _times_and_closing(path, task, fresh=True)
    return np.frombuffer(b"".join(found), np.float64).copy(), closing


def frames(path: Path, wanted: Int64, n_source: int) -> Generator[Frames, None, None]:
    """The wanted source frames (ascending numbers below n_source), in batches of one picture size, decoded ahead of need.

    Whoever stops in the middle should close the generator, which ends the decoding; letting go of it does so too.
    Raises TrialError where the decoder fails or yields fewer frames than it did for the timeline, TransientError where it hangs or is
    killed.
    """
    left = np.zeros(n_source, np.bool_)
    left[wanted] = True
    try:
        yield from _frames(path, left)
    except LostError:
        yield from _frames(path, left, fresh=True)
    if left.any():
        why = f"{len(wanted)} frames were wanted, {len(wanted) - left.sum()} came"
        raise _trial_error(path, "it decodes to fewer frames than before", why, "run again; if it stays so, fetch the file again")


def _frames(path: Path, left: Bool, *, fresh: bool = False) -> Iterator[Frames]:
    """The frames that `left` marks. Those that are yielded are no longer marked."""
    with _decoding(path, "frames", zlib.compress(np.packbits(left).tobytes()), fresh=fresh) as decoder:
        while (record := decoder.receive()).tag == b"b":
            batch = decoder.frames(record)
            left[batch.index] = False
            yield batch
            del batch  # its pictures' slot is free as soon as the reader is done with it
        _closing(path, record)


@contextlib.contextmanager
def _decoding(path: Path, task: str, given: bytes = b"", *, fresh: bool) -> Iterator[Decoder]:
    """A decoding process that was asked. Raises LostError where it ended but may do better when `fresh`."""
    try:
        with decoders.lent(STALL_S, fresh=fresh) as decoder:
            decoder.ask(path, task, given)
            yield decoder
    except StalledError as error:
        problem = Problem(what="the decoder hangs", where=path.name, why=str(error), fix="run again; if it stays so, leave the file out")
        raise TransientError(problem) from error
    except LostError:
        raise
    except EndedError as error:
        if error.status in KILLED:
            fix = "run again; if it stays so, give it more memory"
            raise TransientError(Problem(what="the decoder was killed", where=path.name, why=str(error), fix=fix)) from error
        raise _trial_error(path, "the decoder crashed", str(error), "leave the file out, or make it again with ffmpeg") from error


def _closing(path: Path, record: Record) -> dict[str, Any]:
    """The JSON record that ends every task."""
    data: dict[str, Any] = json.loads(record.data)
    if record.tag == b"e":
        raise _trial_error(path, "cannot be decoded", data["why"], _fix_for(data["why"]))
    return data


def _fix_for(why: str) -> str:
    if why == "no video stream":
        return "give a file with pictures, or leave it out"
    return "give a video file (playlists and lists of files are refused); fetch or make it again if it is damaged"


def _trial_error(path: Path, what: str, why: str, fix: str) -> TrialError:
    return TrialError(Problem(what=what, where=path.name, why=why, fix=fix))
