"""Writing a sample clip as an mp4 whose presentation times are exactly those asked for: H.264 with B-frames, and AAC.

Times that leave here are in seconds on the video's clock. In the file everything is later by the clip's video_start_s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extractors.contract import Float32, Int64, UInt8
from pipeline.synth.voice import RATE_HZ

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

# For the same bytes every time: one thread, and no macroblock-tree rate control, with which x264 core 165 now and then writes other
# bytes for the same pictures even so (13 of 44 encodings on a busy machine; none of 128 without it).
X264 = {"crf": "18", "preset": "superfast", "bf": "2", "g": "60", "threads": "1", "x264-params": "mbtree=0"}
AAC_BIT_RATE = 128_000
AAC_FRAME = 1_024
# In milliseconds, the default, the start offset of an edit list would be rounded away from the sample it stands for.
CONTAINER = {"movie_timescale": str(RATE_HZ)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """When the frames of a clip are shown: frame i at ticks[i] * tick_s, in the file. rate_hz is what the header says."""

    tick_s: Fraction
    ticks: Int64
    rate_hz: Fraction

    @property
    def start_s(self) -> float:
        return float(int(self.ticks[0]) * self.tick_s)

    @property
    def times_s(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """(T,) float64 on the video's clock: the first is 0."""
        return np.array([float(int(tick) * self.tick_s) for tick in self.ticks - self.ticks[0]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """samples: (S,) float32 at RATE_HZ. start_s: of the first sample, in the file, from 0 on.

    The encoder's first packet holds nothing but its own warming up (1024 samples), which an edit list hides when the sound starts
    at 0. No edit list can hide it in a sound that starts later, so there it is left out: the sound must begin with as many zeros.
    """

    samples: Float32
    start_s: float


def write_video(path: Path, frames: Iterable[UInt8], clock: Clock, sound: Sound | None, *, rotation_deg: int = 0) -> None:
    """Encode upright frames, (H, W, 3) uint8 RGB each, one per tick of the clock.

    rotation_deg: a multiple of 90. The pictures are stored turned, and the file says how many degrees counter-clockwise they must be
    turned to stand upright. Raises ImportError without PyAV and av.FFmpegError (an OSError or ValueError) when encoding fails.
    """
    import av

    with av.open(path, "w", format="mp4", options=CONTAINER) as container:
        upright = iter(frames)
        first = next(upright)
        video = _add_video(container, _turned(first, rotation_deg).shape, clock, rotation_deg)
        audio = (
            container.add_stream("aac", rate=RATE_HZ, layout="mono", bit_rate=AAC_BIT_RATE, options={"aac_coder": "fast"})
            if sound
            else None
        )
        container.start_encoding()
        packets = _sound_packets(audio, sound) if audio and sound else iter(())
        sent = 0
        for picture, tick in zip(chain([first], upright), clock.ticks, strict=True):
            container.mux(_encode_picture(video, _turned(picture, rotation_deg), int(tick), clock.tick_s))
            due = max(sent, int((int(tick) * clock.tick_s - Fraction(sound.start_s if sound else 0)) * RATE_HZ) // AAC_FRAME)
            container.mux(list(chain.from_iterable(islice(packets, due - sent))))
            sent = due
        container.mux(video.encode())
        container.mux(list(chain.from_iterable(packets)))


def _turned(picture: UInt8, rotation_deg: int) -> UInt8:
    """The picture as stored: turned clockwise by rotation_deg."""
    return np.ascontiguousarray(np.rot90(picture, -rotation_deg // 90))


def _add_video(container: OutputContainer, shape: tuple[int, ...], clock: Clock, rotation_deg: int) -> VideoStream:
    stream = container.add_stream("libx264", rate=clock.rate_hz, width=shape[1], height=shape[0], pix_fmt="yuv420p", options=X264)
    stream.codec_context.time_base = clock.tick_s
    if rotation_deg:
        stream.set_display_rotation(rotation_deg)
    return stream


def _encode_picture(stream: VideoStream, picture: UInt8, tick: int, tick_s: Fraction) -> list[Packet[VideoStream]]:
    import av

    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
    frame.pts, frame.time_base = tick, tick_s
    return stream.encode(frame)


def _sound_packets(stream: AudioStream, sound: Sound) -> Iterator[list[Packet[AudioStream]]]:
    """The packets that come out for every 1024 samples that go in, and at last the remaining ones."""
    import av

    first = round(sound.start_s * RATE_HZ)
    for start in range(0, len(sound.samples), AAC_FRAME):
        frame = av.AudioFrame.from_ndarray(sound.samples[None, start : start + AAC_FRAME], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, first + start, Fraction(1, RATE_HZ)
        yield _without_warming_up(stream.encode(frame), first)
    yield _without_warming_up(stream.encode(), first)


def _without_warming_up(packets: list[Packet[AudioStream]], first: int) -> list[Packet[AudioStream]]:
    return [packet for packet in packets if first == 0 or packet.pts is None or packet.pts >= first]
