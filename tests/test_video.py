"""The decoding process against ffmpeg's own decoder: orientation, cut-off files, refused containers, the choice of a stream."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from extractors.contract import UInt8
from pipeline import decoders, sound, video
from pipeline.errors import TrialError
from pipeline.records import BATCH_BYTES
from pipeline.sample import write_sample

ORIENTATIONS = {
    "as coded": [],
    "90": ["-display_rotation", "90"],
    "180": ["-display_rotation", "180"],
    "270": ["-display_rotation", "270"],
    "mirrored": ["-display_hflip"],
    "upside down": ["-display_vflip"],
    "90 and mirrored": ["-display_rotation", "90", "-display_hflip"],
    "270 and flipped": ["-display_rotation", "270", "-display_vflip"],
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample") / "data", clips=1, seconds=1.0).videos / "106.mp4"


def ffmpeg(*words: str | Path) -> bytes:
    argv = [sound.ffmpeg_binary(), "-nostdin", "-v", "error", *map(str, words)]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_frames_stand_as_ffmpeg_turns_them(clip: Path, tmp_path: Path, name: str) -> None:
    turned = tmp_path / "turned.mp4"
    ffmpeg(*ORIENTATIONS[name], "-i", clip, "-map", "0:v", "-c", "copy", turned)
    n_source = len(video.frame_times(turned).times_s)
    ours = next(video.frames(turned, np.array([0]), n_source)).images[0]
    theirs = np.frombuffer(ffmpeg("-i", turned, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"), np.uint8)
    assert theirs.size == ours.size
    # The same picture through two builds of the same library: exact where the processor's code paths agree, else a grey level.
    assert np.abs(theirs.reshape(ours.shape).astype(int) - ours).max() <= 1


def test_wanted_frames_come_alone_and_in_order(clip: Path) -> None:
    times_s = video.frame_times(clip).times_s
    every = np.concatenate([batch.images for batch in video.frames(clip, np.arange(len(times_s)), len(times_s))])
    wanted = np.array([0, 3, 4, 17, len(times_s) - 1])
    some = list(video.frames(clip, wanted, len(times_s)))
    assert np.concatenate([batch.index for batch in some]).tolist() == wanted.tolist()
    assert np.array_equal(np.concatenate([batch.images for batch in some]), every[wanted])
    assert np.concatenate([batch.times_s for batch in some]).tolist() == times_s[wanted].tolist()


# Sizes of parts of one stream, and whether their colours use the full range.
PARTS = [((160, 120), "tv"), ((160, 120), "pc"), ((96, 128), "pc"), ((161, 91), "tv")]


def test_pictures_that_change_in_size_and_colours_are_each_converted_as_alone(tmp_path: Path) -> None:
    """What is kept from one picture's conversion to the next shows in none. Batches end where the size changes."""
    stream = b""
    for (width, height), colours in PARTS:
        source = f"testsrc2=s={width}x{height}:r=25:d=0.4,format={'yuv444p' if width % 2 else 'yuv420p'}"
        words = ("-f", "lavfi", "-i", source, "-c:v", "libx264", "-color_range", colours, "-f", "h264", "-")
        stream += ffmpeg(*words)
    path = tmp_path / "changing.h264"
    path.write_bytes(stream)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [image.shape[1::-1] for image in expected] == [size for size, _ in PARTS for _ in range(10)]
    n_source = len(video.frame_times(path).times_s)
    found = [image for batch in video.frames(path, np.arange(n_source), n_source) for image in batch.images]
    assert len(found) == len(expected)
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_pictures_larger_than_a_batch_come_one_by_one(tmp_path: Path) -> None:
    path, size = tmp_path / "large.mkv", (4096, 2304)
    assert 3 * size[0] * size[1] > BATCH_BYTES
    ffmpeg("-f", "lavfi", "-i", f"testsrc=s={size[0]}x{size[1]}:r=25:d=0.12", "-c:v", "mjpeg", "-q:v", "3", path)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    batches = list(video.frames(path, np.arange(3), 3))
    assert [batch.images.shape for batch in batches] == [(1, size[1], size[0], 3)] * 3
    assert all(np.array_equal(batch.images[0], theirs) for batch, theirs in zip(batches, expected, strict=True))


@pytest.mark.parametrize("kind", ["gray", "yuva420p", "rgb24", "yuv420p10le"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "kind.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=99x67:r=25:d=0.2", "-pix_fmt", kind, "-c:v", "ffv1", path)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    found = np.concatenate([batch.images for batch in video.frames(path, np.arange(5), 5)])
    assert np.array_equal(found, expected)


def test_a_matroska_file_that_is_cut_off_is_told(clip: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    ffmpeg("-stream_loop", "3", "-i", clip, "-c", "copy", whole)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    assert video.frame_times(whole).info["damage"] == {}
    assert video.frame_times(cut).info["damage"]["s_missing"] > 1


def pictures(path: Path, n: int) -> UInt8:
    """(n, H, W, 3), those of the first frames."""
    return np.concatenate([batch.images for batch in video.frames(path, np.arange(n), n)])


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg4"])
def test_a_damaged_file_always_gives_the_same_pictures(clip: Path, tmp_path: Path, codec: str) -> None:
    """Several threads would decode a picture from what there is of the last one, which is another part of it each time."""
    undamaged, path = tmp_path / "undamaged.mkv", tmp_path / "damaged.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=1.2", "-pix_fmt", "yuv420p", "-c:v", codec, "-g", "15", undamaged)
    data = bytearray(undamaged.read_bytes())
    for at in range(len(data) // 10, len(data) * 9 // 10, len(data) // 23):
        data[at : at + 9] = bytes(range(9))
    path.write_bytes(data)
    n = len(video.frame_times(path).times_s)
    assert n > 20
    decoders.stop_idle()
    expected = pictures(path, n)
    assert not np.array_equal(expected, pictures(undamaged, n))
    for n_before in (1, 10, 25):  # by a process that has decoded something else
        pictures(clip, n_before)
        assert np.array_equal(pictures(path, n), expected)


def test_the_larger_of_two_videos_is_chosen_and_attached_pictures_are_none(media: Path) -> None:
    info = video.probe(media / "two_video_streams.mp4")
    chosen = next(stream for stream in info["streams"] if stream["index"] == info["video"])
    assert (chosen["width"], chosen["height"]) == (480, 270)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.mp4", "ffconcat version 1.0\nfile '{clip}'\n"),
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{clip}\n#EXT-X-ENDLIST\n"),
        ("text.mp4", "not a video\n"),
    ],
)
def test_lists_of_other_files_are_not_opened(clip: Path, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text.format(clip=clip))
    with pytest.raises(TrialError, match=f"{name}: cannot be decoded: .*playlists and lists of files are refused"):
        video.probe(path)


def test_a_mono_mix_of_two_full_channels_stays_within_one(clip: Path, tmp_path: Path) -> None:
    loud = tmp_path / "loud.mkv"
    tone = "aevalsrc=0.99*sin(2*PI*440*t)|0.99*sin(2*PI*440*t):s=16000:d=1"
    ffmpeg("-i", clip, "-f", "lavfi", "-i", tone, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "pcm_s16le", loud)
    waveform = sound.decode(loud, 16000).waveform
    assert np.abs(waveform.samples).max() == pytest.approx(0.99, abs=0.001)  # 16 bits are 3e-5; the sampled peak is within 1e-3
    assert len(waveform.samples) == 16000
    assert waveform.valid.all()
