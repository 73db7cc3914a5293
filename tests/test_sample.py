"""The sample data: what truth.json says is what a decoder, a face detector and a label reader find in the files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extractors.contract import Float64, UInt8
from pipeline.errors import RequestError
from pipeline.sample import SampleSummary, find_onsets, read_frame_number, write_sample
from pipeline.synth.clips import Clip, ClipKind
from pipeline.synth.face import HEIGHT, WIDTH, write_frame_number
from pipeline.synth.motion import Curve
from pipeline.synth.voice import RATE_HZ, TONE_S, Voice

SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    summary: SampleSummary
    truth: dict[str, Any]

    def of(self, kind: ClipKind) -> tuple[Path, dict[str, Any]]:
        told = next(video for video in self.truth["videos"].values() if video["kind"] == kind)
        return self.summary.folder / told["file"], told


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One clip of every kind."""
    summary = write_sample(tmp_path_factory.mktemp("sample"), seconds=SECONDS)
    return Sample(summary=summary, truth=json.loads(summary.truth.read_text()))


def _decode(path: Path) -> tuple[list[UInt8], Float64, set[int]]:
    """Upright pictures and the presentation times in the file, in presentation order; and the picture types, as numbers."""
    import av

    with av.open(path) as container:
        frames = list(container.decode(video=0))
        pictures = [np.rot90(f.to_ndarray(format="rgb24"), f.rotation // 90).astype(np.uint8) for f in frames]
        return pictures, np.array([f.time for f in frames]), {int(f.pict_type) for f in frames}


def _ffmpeg(path: Path, *arguments: str) -> bytes:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path), *arguments, "-"]
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ClipKind)
def test_every_frame_has_its_number_and_its_time(sample: Sample, kind: ClipKind) -> None:
    from av.video.frame import PictureType

    path, told = sample.of(kind)
    pictures, times_s, types = _decode(path)
    assert all(picture.shape == (HEIGHT, WIDTH, 3) for picture in pictures)
    assert [read_frame_number(picture) for picture in pictures] == list(range(told["n_frames"]))
    assert times_s[0] == told["container_start_s"]
    np.testing.assert_allclose(times_s - times_s[0], told["times_s"], rtol=0, atol=1e-9)  # exact but for the float subtraction
    assert PictureType.B in types


@pytest.mark.parametrize("kind", [ClipKind.LATE_VIDEO_TURNED, ClipKind.VARIABLE_RATE])
def test_the_ffmpeg_command_sees_the_same_upright_frames(sample: Sample, kind: ClipKind) -> None:
    path, told = sample.of(kind)
    raw = _ffmpeg(path, "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24")
    pictures = np.frombuffer(raw, dtype=np.uint8).reshape(-1, HEIGHT, WIDTH, 3)
    assert [read_frame_number(picture) for picture in pictures] == list(range(told["n_frames"]))


@pytest.mark.parametrize("kind", [kind for kind in ClipKind if kind is not ClipKind.NO_AUDIO])
def test_every_tone_begins_when_it_should(sample: Sample, kind: ClipKind) -> None:
    path, told = sample.of(kind)
    # first_pts=0 keeps a late start as silence: sample 0 is at 0 s in the file, which is container_start_s before the video.
    raw = _ffmpeg(path, "-map", "0:a:0", "-af", "aresample=16000:async=1:first_pts=0", "-ac", "1", "-f", "f32le")
    found_s = find_onsets(np.frombuffer(raw, dtype=np.float32), 16_000) - told["container_start_s"]
    assert len(told["tone_onsets_s"]) >= 2
    assert len(found_s) == len(told["tone_onsets_s"])
    np.testing.assert_allclose(found_s, told["tone_onsets_s"], rtol=0, atol=0.001)  # measured: below 0.02 ms


def test_the_kinds_differ_as_they_should(sample: Sample) -> None:
    import av

    steps_s = {kind: np.diff(sample.of(kind)[1]["times_s"]) for kind in ClipKind}
    assert steps_s[ClipKind.PLAIN] == pytest.approx(1 / 30)
    assert steps_s[ClipKind.SIXTY_HZ] == pytest.approx(1 / 60)
    assert steps_s[ClipKind.LATE_VIDEO_TURNED] == pytest.approx(1001 / 24_000)
    varied = steps_s[ClipKind.VARIABLE_RATE]
    assert varied.min() >= 1 / 60 - 1e-9
    assert varied.max() <= 1 / 8 + 1e-9
    assert len(np.unique(varied.round(6))) > len(varied) / 2
    starts_s = {}
    for kind in ClipKind:
        with av.open(sample.of(kind)[0]) as container:
            starts_s[kind] = {stream.type: float((stream.start_time or 0) * (stream.time_base or 1)) for stream in container.streams}
    assert starts_s.pop(ClipKind.NO_AUDIO) == {"video": 0.0}
    assert starts_s.pop(ClipKind.LATE_AUDIO) == {"video": 0.0, "audio": 0.6}
    assert starts_s.pop(ClipKind.LATE_VIDEO_TURNED) == {"video": 0.5, "audio": 0.0}
    assert all(start == {"video": 0.0, "audio": 0.0} for start in starts_s.values())


@pytest.fixture
def one_torch_thread() -> Iterator[None]:
    """The networks of the detector are so small that threads slow it down, tenfold on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_torch_thread")
@pytest.mark.parametrize("kind", [ClipKind.PLAIN, ClipKind.TWO_PEOPLE, ClipKind.NO_FACE_STRETCH, ClipKind.LATE_VIDEO_TURNED])
def test_a_detector_finds_the_faces_where_they_were_drawn(sample: Sample, kind: ClipKind) -> None:
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True, min_face_size=40)
    path, told = sample.of(kind)
    pictures = _decode(path)[0]
    for frame in range(0, len(pictures), 11):
        boxes, prob, points = detector.detect(pictures[frame], landmarks=True)
        trials = [trial for trial in told["trials"].values() if trial["present"][frame]]
        assert (0 if boxes is None else len(boxes)) == len(trials), frame
        if not trials:
            continue
        assert min(prob) > 0.95
        # Left to right is also the order of the trials. A tenth of the face's 90 to 140 px: the mouth that bends misleads a little.
        points = np.array(sorted(points.tolist(), key=lambda face: face[2][0]))
        truth = np.array([trial["landmarks"][frame] for trial in trials])
        assert np.abs(points - truth).max() < 12
        assert all(trial["boxes"][frame][3] - trial["boxes"][frame][1] >= 88 for trial in trials)


def test_the_face_is_away_for_the_middle_third_only(sample: Sample) -> None:
    for kind in ClipKind:
        _, told = sample.of(kind)
        times_s = np.array(told["times_s"])
        away = (times_s >= SECONDS / 3) & (times_s < 2 * SECONDS / 3) & (kind is ClipKind.NO_FACE_STRETCH)
        for trial in told["trials"].values():
            assert trial["present"] == (~away).tolist()


def test_labels_are_the_truth_with_some_rows_missing(sample: Sample) -> None:
    files = {path.stem: path for path in sample.summary.labels.rglob("*.txt")}
    assert sorted(files) == sorted(sample.summary.trials)
    for told in sample.truth["videos"].values():
        for name, trial in told["trials"].items():
            assert files[name].parent == sample.summary.labels / "VA_Estimation_Challenge" / told["split"]
            lines = files[name].read_text().splitlines()
            assert lines[0] == "valence,arousal"
            rows = np.array([list(map(float, line.split(","))) for line in lines[1:]])
            annotated = np.array(trial["annotated"])
            assert rows.shape == (told["n_frames"], 2)
            assert 2 <= (~annotated).sum() < len(rows) / 10
            assert np.all(rows[~annotated] == -5)
            np.testing.assert_array_equal(rows[annotated], np.stack([trial["valence"], trial["arousal"]], axis=1)[annotated])
            assert np.abs(rows[annotated]).max() <= 1
            assert np.abs(np.diff(rows[annotated], axis=0)).max() < 0.6  # smooth, also across the gap and slow frames


def test_two_people_share_one_video(sample: Sample) -> None:
    _, told = sample.of(ClipKind.TWO_PEOPLE)
    assert {name: trial["person"] for name, trial in told["trials"].items()} == {"video5_left": "left", "video5_right": "right"}
    left, right = (np.array(trial["boxes"]) for trial in told["trials"].values())
    assert np.all(left[:, 2] < WIDTH / 2)
    assert np.all(right[:, 0] > WIDTH / 2)
    left_valence, right_valence = (np.array(trial["valence"]) for trial in told["trials"].values())
    assert np.abs(left_valence - right_valence).max() > 0.2


def test_the_corners_of_the_mouth_follow_valence(sample: Sample) -> None:
    """Against the line through the nose, in the detector-free truth, whatever the pose."""
    for told in sample.truth["videos"].values():
        for trial in told["trials"].values():
            points = np.array(trial["landmarks"])
            across = points[:, 1] - points[:, 0]
            unit = across / np.linalg.norm(across, axis=1, keepdims=True)
            down = np.stack([-unit[:, 1], unit[:, 0]], axis=1)
            drop = np.einsum("ti,ti->t", points[:, 3:].mean(axis=1) - points[:, 2], down) / np.linalg.norm(across, axis=1)
            assert np.corrcoef(drop, trial["valence"])[0, 1] < -0.999


def test_arousal_is_heard_and_valence_is_not() -> None:
    """Loudness in 100 ms windows free of tones, over a minute: tied to arousal, and the valence curve plays no part at all."""
    clip = Clip.draw(0, 60.0, 3)
    assert clip.voice is not None
    assert clip.voice.arousals == (clip.subjects[0].arousal,)
    samples = clip.voice.samples()[: 60 * RATE_HZ]
    centres_s = np.arange(0.05, 60, 0.1)
    level = np.log(np.sqrt((samples.reshape(len(centres_s), -1).astype(np.float64) ** 2).mean(axis=1)) + 1e-6)
    quiet = np.array([np.all(np.abs(clip.voice.onsets_s + TONE_S / 2 - t) > 0.08) for t in centres_s])
    assert np.corrcoef(level[quiet], clip.subjects[0].arousal.at(centres_s)[quiet])[0, 1] > 0.9


def test_the_head_moves_more_when_aroused() -> None:
    subject = Clip.draw(0, 60.0, 3).subjects[0]
    times_s = np.arange(0, 60, 1 / 60)
    speed = np.linalg.norm(np.diff(subject.poses(times_s).centre, axis=0), axis=1).reshape(-1, 1)[: 59 * 60].reshape(59, 60).mean(axis=1)
    arousal = subject.arousal.at(times_s)[: 59 * 60].reshape(59, 60).mean(axis=1)
    assert np.corrcoef(speed, arousal)[0, 1] > 0.7


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    told: list[str] = []
    summary = write_sample(tmp_path / "a", clips=2, seconds=1.0, seed=5, progress=told.append)
    write_sample(tmp_path / "b", clips=2, seconds=1.0, seed=5)
    write_sample(tmp_path / "c", clips=2, seconds=1.0, seed=6)
    a, b, c = (_tree(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a)
    assert told == ["106 (plain), 1 of 2", "video5 (two people), 2 of 2"]
    assert summary.trials == ("106", "video5_left", "video5_right")
    assert sorted(path.name for path in summary.videos.iterdir()) == ["106.mp4", "video5.mp4"]


def test_many_clips_have_names_and_contents_of_their_own() -> None:
    clips = [Clip.draw(index, 2.0, 0) for index in range(24)]
    trials = [subject.trial for clip in clips for subject in clip.subjects]
    assert len(set(trials)) == len(trials) == 27
    assert [clip.kind for clip in clips] == 3 * list(ClipKind)
    assert len({clip.subjects[0].valence.phases_rad.tobytes() for clip in clips}) == 24
    validation = sum(len(clip.subjects) for clip in clips if clip.split == "Validation_Set")
    assert 0.2 <= validation / len(trials) <= 0.3


@pytest.mark.parametrize("frame", [0, 1, 255, 43_690, 65_535])
def test_a_frame_number_survives_noise(frame: int) -> None:
    picture = np.full((HEIGHT, WIDTH, 3), 128, dtype=np.uint8)
    write_frame_number(picture, frame)
    noisy = picture + np.random.default_rng(0).normal(0, 25, picture.shape)
    assert read_frame_number(np.clip(noisy, 0, 255).astype(np.uint8)) == frame


def test_what_is_no_frame_code_is_refused() -> None:
    picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    write_frame_number(picture, 77)
    with pytest.raises(ValueError, match="expected sync blocks"):
        read_frame_number(picture[::-1, ::-1])
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) of at least 16 x 336 pixels, got \(304, 200, 3\)"):
        read_frame_number(picture[:, :200])
    with pytest.raises(ValueError, match="expected black and white blocks"):
        read_frame_number(np.full_like(picture, 128))
    with pytest.raises(ValueError, match="expected sync blocks"):
        read_frame_number(np.zeros_like(picture))
    picture[-16:, 5 * 16 : 6 * 16] = 255
    with pytest.raises(ValueError, match="expected odd parity"):
        read_frame_number(picture)
    with pytest.raises(ValueError, match="expected 0 to 65535, got 65536"):
        write_frame_number(picture, 65_536)


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_onsets_of_an_independent_tone(rate_hz: int) -> None:
    """Bursts made here, at any level and over noise, to a tenth of a millisecond; a voice alone and silence have none."""
    times_s = np.arange(3 * rate_hz) / rate_hz
    true_s = [0.2503, 1.1111, 2.7]
    samples = np.random.default_rng(1).normal(0, 0.01, len(times_s))
    for onset_s in true_s:
        samples += 0.3 * np.sin(2 * np.pi * 4_000 * times_s) * ((times_s >= onset_s) & (times_s < onset_s + 0.04))
    for level in (1.0, 0.05):
        np.testing.assert_allclose(find_onsets(level * samples, rate_hz), true_s, rtol=0, atol=1e-4)
    assert len(find_onsets(np.zeros(rate_hz), rate_hz)) == 0
    assert len(find_onsets(np.zeros(3), rate_hz)) == 0


def test_a_voice_alone_has_no_onsets() -> None:
    rng = np.random.default_rng(4)
    whole = Voice.draw([Curve.draw(rng)], 0.0, 5.0, rng).samples().astype(np.float64)
    onsets_s = find_onsets(whole, RATE_HZ)
    assert len(onsets_s) >= 3
    for onset_s in onsets_s:
        whole[int((onset_s - 0.001) * RATE_HZ) : int((onset_s + TONE_S + 0.001) * RATE_HZ)] = 0
    assert len(find_onsets(whole, RATE_HZ)) == 0


def test_bad_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(S,\), got \(2, 5\)"):
        find_onsets(np.zeros((2, 5)), 16_000)
    with pytest.raises(ValueError, match="expected at least 10000"):
        find_onsets(np.zeros(100), 8_000)


def test_bad_requests_are_told_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(RequestError, match="the folder is not empty") as caught:
        write_sample(tmp_path, clips=0, seconds=0.5, seed=-1)
    assert [problem.where for problem in caught.value.problems] == ["--clips", "--seconds", "--seed", str(tmp_path)]
    with pytest.raises(RequestError, match="expected 1 to 600 seconds, got nan"):
        write_sample(tmp_path / "new", seconds=float("nan"))
    with pytest.raises(RequestError, match="not a folder: a file has this name"):
        write_sample(tmp_path / "mine.txt")
    with pytest.raises(RequestError, match="cannot be written"):
        write_sample(tmp_path / "mine.txt" / "below")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failed_write_leaves_no_partial_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.sample.render", fails)
    with pytest.raises(RequestError, match="No space left on device"):
        write_sample(tmp_path / "full", clips=1, seconds=1.0)
    assert list((tmp_path / "full" / "videos").iterdir()) == []
