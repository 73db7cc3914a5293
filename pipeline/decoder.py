"""The decoding process. It runs by itself, so that a decoder that hangs or crashes takes no one with it.

`python -m pipeline.decoder SLOT ...` with the descriptors of the slots; requests ({"path", "task"} as JSON, then the task's own) come by
standard input and what is found goes to standard output (`pipeline.records`), until the input ends. `pipeline.decoders` runs it. It opens
local files of known container formats only.
"""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from pipeline.outlet import Batches, Outlet, end_with_parent
from pipeline.records import CONTAINERS

OPEN_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
MAX_PIXELS = 1 << 26
AUDIO_GAP_S = 0.1  # packets further apart than this leave a gap; ffmpeg's aresample fills gaps from the same size on
SHORT_S, SHORT_SHARE = 1.0, 0.05  # by how much pictures may end before the headers' end without a word
APART_S = 1e-5  # by which a frame follows one that has its time or a later one, so that a time tells which frame it is
TIMES_AT_ONCE = 256
# PyAV's frame and what lists its side data refer to each other, so only the garbage collector frees it. Left to its own count of
# objects it takes 660 MB in a hundred frames of 1080p; and where a damaged picture keeps what was in its memory before, which frame that
# was would depend on the requests before this one.
SWEEP_PIXELS = 8 << 20
Frame = Any


def serve(outlet: Outlet) -> None:
    """Answer one request after another. Raises EOFError where there will be no more."""
    while True:
        line, _, given = outlet.request().partition(b"\n")
        _answer(json.loads(line), given, outlet)
        gc.collect()


def _answer(request: dict[str, str], given: bytes, outlet: Outlet) -> None:
    tasks = {"probe": _probe, "times": _send_times, "frames": _send_frames, "sound": _sound}
    try:
        with av.open("file:" + request["path"], options=OPEN_OPTIONS, metadata_errors="replace") as container:
            closing = tasks[request["task"]](container, given, outlet)
    except av.error.FFmpegError as error:
        outlet.send_json(b"e", {"why": error.strerror or str(error)})
    except (ValueError, MemoryError) as error:
        outlet.send_json(b"e", {"why": str(error) or type(error).__name__})
    else:
        outlet.send_json(b"j", closing)


def choose(streams: Any) -> Any:
    """The stream that ffmpeg would pick by itself: the largest picture, or the most channels, the default flag counting far more.

    Attached pictures are no video. None where there is no stream.
    """

    def score(stream: Any) -> float:
        size = stream.width * stream.height if stream.type == "video" else stream.channels
        return float(size + 5_000_000 * bool(stream.disposition & av.stream.Disposition.default))

    real = [stream for stream in streams if not stream.disposition & av.stream.Disposition.attached_pic]
    return max(real, key=score, default=None)


def _video(container: Any) -> Any:
    stream = choose(container.streams.video)
    if stream is None:
        raise ValueError("no video stream")
    if stream.width * stream.height > MAX_PIXELS:
        raise ValueError(f"a picture of {stream.width}x{stream.height} is over {MAX_PIXELS} pixels")
    # One thread: of a damaged file several make other pictures, and other ones each time, since one that must do without a part of the
    # last picture takes what another has made of it so far (docs/decisions/016-threads-decide-no-bit.md). dav1d heeds the number alone.
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    return stream


def _decoded(container: Any, stream: Any, damage: dict[str, Any]) -> Iterator[tuple[Frame, float]]:
    """Frames in presentation order with their times, strictly ascending, counted from the first one's.

    What is lost, and what had to be put right, is counted in `damage`.
    """
    first: float | None = None
    last, n_frames = 0.0, 0
    step = float(1 / stream.average_rate) if stream.average_rate else 0.04
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            damage["ends_early"] = error.strerror
            return
        if packet is None:
            if _is_cut_off(container, stream):
                damage["ends_early"] = "the file ends before its pictures do"
            return
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            damage["packets_lost"] = damage.get("packets_lost", 0) + 1
            damage["why"] = error.strerror
            continue
        for frame in frames:
            if frame.pts is None:
                damage["frames_untimed"] = damage.get("frames_untimed", 0) + 1
                time_s = last + step if first is not None else 0.0
            else:
                time_s = float(frame.pts * frame.time_base) - (first or 0.0)
            if first is None:
                first, time_s = time_s, 0.0
            if n_frames and time_s <= last:
                what = "steps_back" if time_s < last else "same_time"
                damage[what] = damage.get(what, 0) + 1
                time_s = last + APART_S
            last, n_frames = time_s, n_frames + 1
            yield frame, time_s


def _is_cut_off(container: Any, stream: Any) -> bool:
    """Whether the file's own index names pictures past its end. FFmpeg takes such an end, of an mp4 or avi, for the video's."""
    return any(entry.pos + entry.size > container.size for entry in stream.index_entries)


def _send_times(container: Any, given: bytes, outlet: Outlet) -> dict[str, Any]:
    stream = _video(container)
    damage: dict[str, Any] = {}
    times_s: list[float] = []
    shown_to_s = 0.0
    for _, shown_to_s in _decoded(container, stream, damage):
        times_s.append(shown_to_s)
        if len(times_s) == TIMES_AT_ONCE:
            outlet.send(b"t", np.array(times_s).tobytes())
            times_s.clear()
        outlet.is_at_work()
    outlet.send(b"t", np.array(times_s).tobytes())
    promised_s = _promised_s(container, stream)
    if promised_s - shown_to_s > max(SHORT_S, SHORT_SHARE * promised_s):
        damage["s_missing"] = round(promised_s - shown_to_s, 1)
    return {**_describe(container), "damage": damage}


def _promised_s(container: Any, stream: Any) -> float:
    """How long the headers say that the pictures last; where only the whole file's length is known, that."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration / av.time_base) if container.duration else 0.0


def _send_frames(container: Any, given: bytes, outlet: Outlet) -> dict[str, Any]:
    """The frames whose bits are set in what is given (one bit a frame, zlib), upright RGB. What follows the last is not decoded."""
    stream, reformatter = _video(container), VideoReformatter()
    wanted = np.trim_zeros(np.unpackbits(np.frombuffer(zlib.decompress(given), np.uint8)), "b")
    damage: dict[str, Any] = {}
    n_pixels = 0
    with Batches(outlet) as batches:
        for number, (frame, time_s) in zip(range(len(wanted)), _decoded(container, stream, damage), strict=False):
            if wanted[number]:
                batches.add(number, time_s, upright(frame, reformatter))
                n_pixels += frame.width * frame.height
            if n_pixels > SWEEP_PIXELS:
                gc.collect()
                n_pixels = 0
            outlet.is_at_work()
    return {"damage": damage}


def upright(frame: Frame, reformatter: Any) -> Any:
    """(H, W, 3) uint8 RGB in whatever layout, turned and flipped as the stream's display matrix says.

    reformatter: one for a whole video saves setting up the conversion for each frame. It runs in one thread: handing over to a
    second costs more than is gained, 0.17 ms instead of 0.12 at 512x512.
    """
    plane = reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
    image = (
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
    )
    matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is not None:
        a, b, _, c, d = np.frombuffer(bytes(matrix), "<i4")[:5] / 65536.0
        image = _turned(image, float(a), float(b), float(c), float(d))
    return image


def _turned(image: Any, a: float, b: float, c: float, d: float) -> Any:
    """Apply [[a, b], [c, d]] (a row vector's x' = a x + c y, y' = b x + d y) where it is a turn by right angles, flipped or not."""
    if abs(b) > abs(a):  # x and y change places
        image = image.transpose(1, 0, 2)
        right, down = c > 0, b > 0
    else:
        right, down = a > 0, d > 0
    if not right:
        image = image[:, ::-1]
    if not down:
        image = image[::-1]
    return image


def _describe(container: Any) -> dict[str, Any]:
    """What the headers say, of every stream, and which were chosen."""
    video, audio = choose(container.streams.video), choose(container.streams.audio)
    streams = []
    for stream in container.streams:
        entry: dict[str, Any] = {"index": stream.index, "type": stream.type}
        if stream.type in ("video", "audio"):
            start_s = float(stream.start_time * stream.time_base) if stream.start_time is not None else None
            entry |= {"codec": stream.codec_context.name, "start_s": start_s, "n_frames_header": stream.frames}
        if stream.type == "video":
            rates = {"mean_hz_header": stream.average_rate, "base_hz_header": stream.base_rate}
            entry |= {"width": stream.width, "height": stream.height, **{k: float(v) if v else None for k, v in rates.items()}}
        if stream.type == "audio":
            entry |= {"rate_hz": stream.rate, "channels": stream.channels}
        streams.append(entry)
    return {
        "container": container.format.name,
        "duration_s_header": container.duration / av.time_base if container.duration else None,
        "streams": streams,
        "video": video.index if video is not None else None,
        "audio": audio.index if audio is not None else None,
    }


def _probe(container: Any, given: bytes, outlet: Outlet) -> dict[str, Any]:
    return _describe(container)


def _sound(container: Any, given: bytes, outlet: Outlet) -> dict[str, Any]:
    """When the first picture is shown and where the chosen audio stream has sound, in the container's seconds."""
    found = _describe(container)
    video = _video(container)
    first: float | None = None
    spans: list[list[float]] = []
    for packet in container.demux([video, *(container.streams[i] for i in (found["audio"],) if i is not None)]):
        if packet.stream.index != video.index:
            _extend(spans, packet)
        elif first is None:
            first = _first_time(packet)
        outlet.is_at_work()
    if first is None:
        raise ValueError("no picture can be decoded")
    return {**found, "first_frame_s": first, "sound_spans_s": spans}


def _first_time(packet: Any) -> float | None:
    try:
        frames = packet.decode()
    except av.error.FFmpegError:
        return None  # the next packet may start a picture; where none does, the caller says so
    return next((float(frame.pts * frame.time_base) for frame in frames if frame.pts is not None), None)


def _extend(spans: list[list[float]], packet: Any) -> None:
    if packet.pts is None or packet.size == 0 or packet.is_discard:
        return
    start = float(packet.pts * packet.time_base)
    stop = start + float((packet.duration or 0) * packet.time_base)
    if spans and start - spans[-1][1] <= AUDIO_GAP_S:
        spans[-1][1] = max(spans[-1][1], stop)
    else:
        spans.append([start, stop])


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the reader's to end, and ends with it
    end_with_parent()
    gc.disable()  # it sweeps when it is told to
    gc.freeze()  # what is there now stays; looking through it each time would take longer than the sweep itself
    with contextlib.suppress(EOFError, BrokenPipeError):  # the reader is gone: there is nobody to tell
        serve(Outlet([int(word) for word in sys.argv[1:]]))
