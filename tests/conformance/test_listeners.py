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
RATE_HZ = 16000
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
    """An extractor with some parameters."""

    extractor: Any
    reads_rows: bool

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


def subject_of(kept: Build, name: str, params: dict[str, Any]) -> Subject:
    extractor = kept(name, **params)
    return Subject(extractor=extractor, reads_rows=Kind.TIMELINE in extractor.reads(extractor.Params(**params)))


@pytest.fixture
def subject(kept: Build, listener: Listener) -> Subject:
    return subject_of(kept, *listener)


@pytest.fixture
def row_subject(kept: Build, row_listener: Listener) -> Subject:
    return subject_of(kept, *row_listener)


@pytest.fixture(scope="module")
def voice(golden: types.ModuleType) -> Samples:
    """(60 s,) a pulse train of 130 Hz, off for a second in every three, over noise."""
    n = 60 * RATE_HZ
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
    subject.hear(waveform(voice[:n]))
    subject.hear(waveform(np.zeros(n)))
    assert not subject.hear(waveform(voice[:n], [(0, 1)])).valid.any()


@pytest.mark.parametrize("kind", ["voice", "silence", "loud", "constant"])
def test_two_seconds(kind: str, subject: Subject, voice: Samples) -> None:
    """Every row that a second of sound follows is valid, whatever the sound: silence that was recorded is sound."""
    loud = np.sign(voice[: 2 * RATE_HZ] - 0.001)
    samples = {"voice": voice[: 2 * RATE_HZ], "silence": 0 * loud, "loud": loud, "constant": 0 * loud + 1}[kind]
    track = subject.hear(waveform(samples))
    early = track.times_s <= 1.0
    assert early.any()
    # Windows that look back have half of what they look for from 0.25 s on.
    assert track.valid[early & (track.times_s >= 0.25)].all()


def test_sound_that_a_source_does_not_have_is_never_valid(subject: Subject, voice: Samples) -> None:
    assert not subject.hear(waveform(voice[: 2 * RATE_HZ], [(0, 2)])).valid.any()
    late = subject.hear(waveform(voice[: 5 * RATE_HZ], [(0, 1.5), (3.6, 5)]))
    assert late.valid.any()
    # A row of half a window's sound is valid, up to half a second from it.
    assert not late.valid[(late.times_s < 1.0 - 1e-9) | (late.times_s > 4.1 + 1e-9)].any()


def test_a_timeline_of_any_length(row_subject: Subject, voice: Samples) -> None:
    sound = waveform(voice[: 2 * RATE_HZ])
    assert row_subject.hear(sound, np.zeros(0)).values.shape == (0, row_subject.extractor.dim)
    assert row_subject.hear(sound, np.zeros(1)).valid.all()
    track = row_subject.hear(sound, np.array([0, 0.04, 0.04, 0.041, 0.5, 1.3]))  # two frames may have one time
    np.testing.assert_array_equal(track.values[1], track.values[2])


def test_a_timeline_is_asked_for(row_subject: Subject, voice: Samples) -> None:
    with pytest.raises(ValueError, match="expected the timeline's row times for hop 'timeline', got none"):
        row_subject.extractor.extract(waveform(voice[:RATE_HZ]), None)


def test_the_same_sound_gives_the_same_bits(listener: Listener, subject: Subject, build: Build, voice: Samples) -> None:
    """Again, after other sound, and from another instance: nothing is carried from trial to trial."""
    name, params = listener
    sound = waveform(voice[: 2 * RATE_HZ])
    first = subject.hear(sound)
    subject.hear(waveform(voice[4 * RATE_HZ : 5 * RATE_HZ], [(0.2, 0.4)]))
    assert same(subject.hear(sound), first)
    assert same(subject_of(build, name, params).hear(sound), first)


def test_a_minute_is_in_its_place(listener: Listener, rows: dict[str, Any], subject: Subject, voice: Samples) -> None:
    """The first rows are those of the sound's beginning alone, and a gap far into it is masked where it is."""
    sound = waveform(voice, [(40, 41.2)])
    early = np.arange(0, 1.9, 0.2)  # a row may depend on those about it
    long = subject.hear(sound, np.concatenate([early, np.arange(2, 60, 2.0)]))
    short = subject.hear(waveform(voice[: 2 * RATE_HZ]), early)
    heard = np.isin(short.times_s, long.times_s) & (short.times_s < 0.9)
    assert heard.any()
    if not rows[listener[0]].far:
        close(long.values[np.isin(long.times_s, short.times_s[heard])], short.values[heard])
    gap = (long.times_s >= 40) & (long.times_s < 41.2)
    assert gap.any()
    assert not long.valid[gap].any()
    assert long.valid[(long.times_s > 42) & (long.times_s < 58)].all()
    assert long.valid[(long.times_s > 2) & (long.times_s < 38)].all()
    if not subject.reads_rows:
        assert long.times_s[-1] > 58.5


def close(got: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Up to rounding: other batches, other kernels."""
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("rate_hz", [8000, 44100])
def test_sound_of_another_rate(rate_hz: int, listener: Listener, rows: dict[str, Any], subject: Subject, voice: Samples) -> None:
    """It is refused with the rate to ask for, or is at the same times."""
    sound = waveform(voice[: 2 * rate_hz], rate_hz=rate_hz)
    if rows[listener[0]].any_rate:
        assert subject.hear(sound).valid.any()
    else:
        with pytest.raises(ExtractorError, match=f"defined at 16000 Hz and got {rate_hz} Hz; .* rate_hz: 16000"):
            subject.hear(sound)


def test_every_listed_precision_points_the_same_way(listener: Listener, subject: Subject, build: Build, voice: Samples) -> None:
    name, params = listener
    sound = waveform(voice[: 2 * RATE_HZ])
    full = subject.hear(sound)
    for precision in subject.extractor.precisions[1:]:
        half = replace(subject, extractor=build(name, precision=precision, **params)).hear(sound)
        np.testing.assert_array_equal(half.valid, full.valid)
        a, b = half.values[half.valid], full.values[full.valid]
        assert ((a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) > 0.999).all()
