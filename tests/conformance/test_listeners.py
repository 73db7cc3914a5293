"""What every extractor of sound must do: extract(waveform, row_times_s), with its defaults and with other parameters."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from extractors.contract import Bool, ExtractorError, Float64, Kind, Track, Waveform

Build = Callable[..., Any]
Listener = tuple[str, dict[str, Any]]  # an extractor's name and its parameters
Samples = npt.NDArray[np.floating[Any]]
RATE_HZ, LARGEST_RATE_HZ = 16000, 44100
LARGEST_FLOAT16 = 65504.0  # a store's default type
WIDE = ("compare_lld",)  # those that exceed it, which their documentation says


def waveform(samples: Samples, silent_s: Sequence[tuple[float, float]] = (), rate_hz: int = RATE_HZ) -> Waveform:
    """silent_s: where the source has no sound, in whole blocks of 10 ms."""
    valid = np.ones(math.ceil(len(samples) / (rate_hz // 100)), np.bool_)
    samples = samples.astype(np.float32)
    for start_s, stop_s in silent_s:
        valid[round(start_s * 100) : round(stop_s * 100)] = False
        samples[round(start_s * rate_hz) : round(stop_s * rate_hz)] = 0
    return Waveform(samples=samples, rate_hz=rate_hz, valid=valid)


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An extractor with some parameters. rate_hz: of the sound; window_rows: of the timeline, that its window spans."""

    extractor: Any
    reads_rows: bool
    rate_hz: int
    window_rows: int

    def sound(self, samples: Samples, seconds: float, silent_s: Sequence[tuple[float, float]] = ()) -> Waveform:
        """The first seconds of the samples, at its rate."""
        return waveform(samples[: round(seconds * self.rate_hz)], silent_s, self.rate_hz)

    def hear(self, sound: Waveform, times_s: Float64 | None = None) -> Track:
        """Its track, checked for what holds of every track. times_s: of a timeline's rows; 5 per second where none are given."""
        if times_s is None:
            times_s = np.arange(0, len(sound.samples) / sound.rate_hz + 0.4, 0.2)
        before = sound.samples.tobytes(), sound.valid.tobytes(), times_s.tobytes()
        track: Track = self.extractor.extract(sound, times_s if self.reads_rows else None)
        assert (sound.samples.tobytes(), sound.valid.tobytes(), times_s.tobytes()) == before, "inputs are not its own to change"
        assert track.values.dtype == np.float32
        assert track.values.shape == (len(track.times_s), self.extractor.dim)
        assert track.times_s.dtype == np.float64
        assert np.isnan(track.values[~track.valid]).all()
        assert np.abs(track.values[track.valid]).max(initial=0) <= LARGEST_FLOAT16 or self.extractor.name in WIDE
        assert len(set(track.columns)) in (0, self.extractor.dim)
        if self.reads_rows:  # a row may be of the second before or after it
            np.testing.assert_array_equal(track.times_s, times_s)
            near = [sounds_at(sound, times_s + at_s) for at_s in np.arange(-1.0, 1.01, 0.1)]
            assert not (track.valid & ~np.any(near, axis=0)).any(), "valid far from any sound"
        else:
            assert not (track.valid & ~sounds_at(sound, track.times_s)).any(), "valid where there is no sound"
            assert (np.diff(track.times_s) > 0).all()
            assert ((track.times_s > 0) & (track.times_s < len(sound.samples) / sound.rate_hz)).all()
        return track


def sounds_at(sound: Waveform, times_s: Float64) -> Bool:
    block = np.floor(times_s * 100 + 1e-6).astype(int)
    known = (block >= 0) & (block < len(sound.valid))
    return np.asarray(known & np.append(sound.valid, False)[np.where(known, block, -1)])


def subject_of(kept: Build, row: Any, name: str, params: dict[str, Any]) -> Subject:
    extractor = kept(name, **params)
    given = extractor.Params(**params)
    window_rows = getattr(given, row.window_param) if row.window_param else 1
    reads_rows = Kind.TIMELINE in extractor.reads(given)
    return Subject(extractor=extractor, reads_rows=reads_rows, rate_hz=row.rate_hz, window_rows=window_rows)


@pytest.fixture
def subject(kept: Build, listener: Listener, rows: dict[str, Any]) -> Subject:
    return subject_of(kept, rows[listener[0]], *listener)


@pytest.fixture
def row_subject(kept: Build, row_listener: Listener, rows: dict[str, Any]) -> Subject:
    return subject_of(kept, rows[row_listener[0]], *row_listener)


@pytest.fixture(scope="module")
def voice(golden: types.ModuleType) -> Samples:
    """(60 s at 44.1 kHz,) at 16 kHz a pulse train of 130 Hz, off for a second in every three, over noise."""
    n = 60 * LARGEST_RATE_HZ
    samples = 0.02 * golden.uniform("voice", n)
    pulses = np.arange(0, n, 123)
    samples[pulses[pulses % (3 * RATE_HZ) < 2 * RATE_HZ]] += 0.6
    return np.asarray(samples)


def same(a: Track, b: Track) -> bool:
    """To the last bit."""
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("values", "times_s", "valid"))


def test_the_dimension_is_the_known_one(listener: Listener, rows: dict[str, Any], subject: Subject) -> None:
    name, params = listener
    assert type(subject.extractor.dim) is int
    assert params or subject.extractor.dim == rows[name].dim


@pytest.mark.parametrize("n", [0, 1, 100, 480, 4800])
def test_hardly_any_sound(n: int, subject: Subject, voice: Samples) -> None:
    subject.hear(waveform(voice[:n], rate_hz=subject.rate_hz))
    subject.hear(waveform(np.zeros(n), rate_hz=subject.rate_hz))
    assert not subject.hear(waveform(voice[:n], [(0, 1)], subject.rate_hz)).valid.any()


@pytest.mark.parametrize("kind", ["voice", "silence", "loud", "constant"])
def test_two_seconds(kind: str, subject: Subject, voice: Samples) -> None:
    """Every row that a second of sound follows is valid, whatever the sound: silence that was recorded is sound."""
    loud = np.sign(voice - 0.001)
    samples = {"voice": voice, "silence": 0 * loud, "loud": loud, "constant": 0 * loud + 1}[kind]
    track = subject.hear(subject.sound(samples, 2))
    early = track.times_s <= 1.0
    assert early.any()
    # Windows that look back have half of what they look for from 0.25 s on.
    assert track.valid[early & (track.times_s >= 0.25)].all()


def test_sound_that_a_source_does_not_have_is_never_valid(subject: Subject, voice: Samples) -> None:
    assert not subject.hear(subject.sound(voice, 2, [(0, 2)])).valid.any()
    late = subject.hear(subject.sound(voice, 5, [(0, 1.5), (3.6, 5)]))
    assert late.valid.any()
    # A row of half a window's sound is valid, up to half a second from it.
    assert not late.valid[(late.times_s < 1.0 - 1e-9) | (late.times_s > 4.1 + 1e-9)].any()


def test_a_timeline_of_any_length(row_subject: Subject, voice: Samples) -> None:
    sound = row_subject.sound(voice, 2)
    assert row_subject.hear(sound, np.zeros(0)).values.shape == (0, row_subject.extractor.dim)
    assert row_subject.hear(sound, np.zeros(1)).valid.all() or row_subject.window_rows > 1  # that looks back: nothing was heard yet
    assert row_subject.hear(sound, np.full(1, 0.25)).valid.all()
    track = row_subject.hear(sound, np.array([0, 0.04, 0.04, 0.041, 0.5, 1.3]))  # two frames may have one time
    np.testing.assert_array_equal(track.values[1], track.values[2])


def test_a_timeline_is_asked_for(row_subject: Subject, voice: Samples) -> None:
    with pytest.raises(ValueError, match=r"expected the timeline's row times( for hop 'timeline')?, got none"):
        row_subject.extractor.extract(row_subject.sound(voice, 1), None)


def test_the_same_sound_gives_the_same_bits(
    listener: Listener, subject: Subject, rows: dict[str, Any], build: Build, voice: Samples
) -> None:
    """Again, after other sound, and from another instance: nothing is carried from trial to trial."""
    name, params = listener
    sound = subject.sound(voice, 2)
    first = subject.hear(sound)
    subject.hear(subject.sound(voice[4 * RATE_HZ :], 1, [(0.2, 0.4)]))
    assert same(subject.hear(sound), first)
    assert same(subject_of(build, rows[name], name, params).hear(sound), first)


def test_a_minute_is_in_its_place(listener: Listener, rows: dict[str, Any], subject: Subject, voice: Samples) -> None:
    """The first rows are those of the sound's beginning alone, and a gap far into it is masked where it is."""
    sound = subject.sound(voice, 60, [(40, 41.2)])
    # A row may depend on those about it. Where a window is counted in rows, so many rows have the same time, and it is 0.75 s.
    step_s, later_s = (0.75, 0.75) if subject.window_rows > 1 else (0.2, 0.7)
    early = np.arange(0, 1.9, step_s)
    times_s = np.concatenate([early, np.arange(early[-1] + step_s, 60, later_s)])
    long = subject.hear(sound, np.repeat(times_s, subject.window_rows))
    short = subject.hear(subject.sound(voice, 2), np.repeat(early, subject.window_rows))
    heard = short.valid & np.isin(short.times_s, long.times_s) & (short.times_s < 0.9)
    assert heard.any()
    if not rows[listener[0]].far:
        close(long.values[np.isin(long.times_s, short.times_s[heard])], short.values[heard])
    gap = (long.times_s > 40) & (long.times_s < 41.2)
    assert gap.any()
    assert not long.valid[gap].any()
    assert long.valid[(long.times_s > 42) & (long.times_s < 58)].all()
    assert long.valid[(long.times_s > 2) & (long.times_s < 38)].all()
    if not subject.reads_rows:
        assert long.times_s[-1] > 58.5


def close(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Up to rounding: other batches, other kernels."""
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("other", [0, 1])
def test_sound_of_another_rate(other: int, listener: Listener, rows: dict[str, Any], subject: Subject, voice: Samples) -> None:
    """It is refused with the rate to ask for, or is at the same times."""
    own = subject.rate_hz
    rate_hz = [rate for rate in (8000, 16000, 44100) if rate != own][other]
    sound = waveform(voice[: 2 * rate_hz], rate_hz=rate_hz)
    if rows[listener[0]].any_rate:
        assert subject.hear(sound).valid.any()
    else:
        with pytest.raises(ExtractorError, match=f"defined at {own} Hz and got {rate_hz} Hz; .* rate_hz: {own}"):
            subject.hear(sound)


def test_every_listed_precision_points_the_same_way(listener: Listener, subject: Subject, build: Build, voice: Samples) -> None:
    name, params = listener
    sound = subject.sound(voice, 2)
    full = subject.hear(sound)
    for precision in subject.extractor.precisions[1:]:
        half = replace(subject, extractor=build(name, precision=precision, **params)).hear(sound)
        np.testing.assert_array_equal(half.valid, full.valid)
        a, b = half.values[half.valid], full.values[full.valid]
        assert ((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) > 0.999).all()
