"""Frames and their times, from a decoding process that can be killed. Sequential, frame-exact, one batch in memory at a time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Float64, Frames, Int64
from pipeline.errors import PassingError, Problem, TrialError
from pipeline.process import Process, StalledError
from pipeline.records import RECORD

STALL_S = 120.0
BATCH_BYTES = 16 << 20
BATCH_FRAMES = 32


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
    with _decoding(path, {"task": "probe"}) as process:
        return dict(_closing(path, process, _head(path, process)))


def sound_of(path: Path) -> dict[str, Any]:
    """As `probe`, with first_frame_s and sound_spans_s: [start, stop) of every stretch of the chosen audio stream, container seconds."""
    with _decoding(path, {"task": "sound"}) as process:
        return dict(_closing(path, process, _head(path, process)))


def frame_times(path: Path) -> Decoded:
    """Decode the whole video for its presentation times; no picture is converted. Raises TrialError where there is none."""
    found: list[float] = []
    with _decoding(path, {"task": "times"}) as process:
        while (head := _head(path, process))[0] == b"t":
            found.append(head[2])
        info = _closing(path, process, head)
    damage = info["damage"]
    if "ends_early" in damage:
        why = f"{len(found)} frames decoded, then: {damage['ends_early']}"
        raise _trial_error(path, "the file is cut off or damaged", why, "fetch or make the file again")
    if not found:
        raise _trial_error(path, "no frame can be decoded", damage.get("why", "the video stream is empty"), "fetch or make the file again")
    return Decoded(times_s=np.array(found, np.float64), info=info)


def frames(path: Path, wanted: Int64, n_source: int) -> Iterator[Frames]:
    """The wanted source frames (ascending numbers below n_source), in batches of one picture size.

    Raises TrialError where the decoder fails or yields fewer frames than it did for the timeline, PassingError where it hangs.
    """
    bits = np.zeros(n_source, np.bool_)
    bits[wanted] = True
    got = 0
    with _decoding(path, {"task": "frames"}, zlib.compress(np.packbits(bits).tobytes())) as process:
        batch: list[tuple[int, float, Any]] = []
        while (head := _head(path, process))[0] == b"f":
            picture = np.empty((head[3], head[4], 3), np.uint8)
            if process.read_into(picture.data.cast("B")) < picture.nbytes:
                raise _crashed(path, process)
            if batch and (batch[0][2].shape != picture.shape or _is_full(batch)):
                yield _frames(batch)
                batch = []
            batch.append((head[1], head[2], picture))
            got += 1
        _closing(path, process, head)
    if batch:
        yield _frames(batch)
    if got != len(wanted):
        why = f"{len(wanted)} frames were wanted, {got} came"
        raise _trial_error(path, "it decodes to fewer frames than before", why, "run again; if it stays so, fetch the file again")


def _is_full(batch: list[tuple[int, float, Any]]) -> bool:
    return len(batch) >= BATCH_FRAMES or (len(batch) + 1) * batch[0][2].nbytes > BATCH_BYTES


def _frames(batch: list[tuple[int, float, Any]]) -> Frames:
    numbers, times_s, pictures = zip(*batch, strict=True)
    return Frames(images=np.stack(pictures), times_s=np.array(times_s), index=np.array(numbers, np.int64))


@contextlib.contextmanager
def _decoding(path: Path, request: dict[str, Any], given: bytes = b"") -> Iterator[Process]:
    # -P: the working folder may hold anything, and is no place to import from.
    argv = [sys.executable, "-P", "-m", "pipeline.decoder", json.dumps({"path": str(path.absolute()), **request})]
    try:
        with Process(argv, stall_s=STALL_S, given=given) as process:
            yield process
    except StalledError as error:
        problem = Problem(what="the decoder hangs", where=path.name, why=str(error), fix="run again; if it stays so, leave the file out")
        raise PassingError(problem) from error


def _head(path: Path, process: Process) -> tuple[Any, ...]:
    raw = process.read(RECORD.size)
    if len(raw) < RECORD.size:
        raise _crashed(path, process)
    return RECORD.unpack(raw)


def _closing(path: Path, process: Process, head: tuple[Any, ...]) -> dict[str, Any]:
    """The JSON record that ends every task."""
    data: dict[str, Any] = json.loads(process.read(head[4]))
    if head[0] == b"e":
        raise _trial_error(path, "cannot be decoded", data["why"], _fix_for(data["why"]))
    return data


def _fix_for(why: str) -> str:
    if why == "no video stream":
        return "give a file with pictures, or leave it out"
    return "give a video file (playlists and lists of files are refused); fetch or make it again if it is damaged"


def _crashed(path: Path, process: Process) -> TrialError:
    status, said = process.finish()
    last = said.splitlines()[-1] if said else "it said nothing"
    return _trial_error(path, "the decoder crashed", f"exit status {status}: {last}", "leave the file out, or make it again with ffmpeg")


def _trial_error(path: Path, what: str, why: str, fix: str) -> TrialError:
    return TrialError(Problem(what=what, where=path.name, why=why, fix=fix))
