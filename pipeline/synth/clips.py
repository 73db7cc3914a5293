"""Which clips a sample data set has: their names, kinds, clocks, people and voices, all drawn from the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

import numpy as np

from extractors.contract import Person
from pipeline.synth.motion import Place, Subject
from pipeline.synth.video import Clock
from pipeline.synth.voice import Voice

CYCLE = 500  # added to the number in a name for each further round of the kinds
FRAME_S = (1 / 60, 1 / 8)  # the shortest and longest frame at a variable rate
VARIABLE_TICKS_HZ = 90_000
LATE_AUDIO_S, LATE_VIDEO_S = 0.6, 0.5
SINGLE_SCALE, DOUBLE_SCALE = (0.95, 1.12), (0.88, 0.95)


class ClipKind(StrEnum):
    """What is special about a clip; the most important first."""

    PLAIN = "plain"
    TWO_PEOPLE = "two_people"
    VARIABLE_RATE = "variable_rate"
    SIXTY_HZ = "60_hz"
    NO_FACE_STRETCH = "no_face_stretch"
    NO_AUDIO = "no_audio"
    LATE_AUDIO = "late_audio"
    LATE_VIDEO_TURNED = "late_video_turned"


# As in Aff-Wild2: plain numbers (one of them the beginning of another name), number-rate-size, videoNN and its parts.
NAMES: dict[ClipKind, tuple[str, int, str]] = {
    ClipKind.PLAIN: ("", 106, ""),
    ClipKind.TWO_PEOPLE: ("video", 5, ""),
    ClipKind.VARIABLE_RATE: ("", 106, "-30-416x304"),
    ClipKind.SIXTY_HZ: ("", 122, "-60-416x304"),
    ClipKind.NO_FACE_STRETCH: ("video", 31, ""),
    ClipKind.NO_AUDIO: ("", 207, ""),
    ClipKind.LATE_AUDIO: ("video", 44, "_2"),
    ClipKind.LATE_VIDEO_TURNED: ("", 318, "-24-416x304"),
}
RATES_HZ = {
    ClipKind.SIXTY_HZ: Fraction(60),
    ClipKind.NO_AUDIO: Fraction(25),
    ClipKind.LATE_VIDEO_TURNED: Fraction(24_000, 1_001),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """All that decides one video. seed: of its background and of which rows are not annotated."""

    name: str
    kind: ClipKind
    split: str
    clock: Clock
    subjects: tuple[Subject, ...]
    voice: Voice | None
    rotation_deg: int
    seed: tuple[int, int]

    @classmethod
    def draw(cls, index: int, seconds: float, seed: int) -> Clip:
        """The clip of this index: the kinds follow each other, every fourth clip is for validation."""
        kind = list(ClipKind)[index % len(ClipKind)]
        stem, number, tail = NAMES[kind]
        name = f"{stem}{number + CYCLE * (index // len(ClipKind))}{tail}"
        rng = np.random.default_rng((seed, index))
        clock = _draw_clock(kind, seconds, rng)
        subjects = _draw_subjects(name, kind, seconds, rng)
        return cls(
            name=name,
            kind=kind,
            split="Validation_Set" if index % 4 == 2 else "Train_Set",
            clock=clock,
            subjects=subjects,
            voice=_draw_voice(kind, subjects, seconds, rng),
            rotation_deg=90 if kind is ClipKind.LATE_VIDEO_TURNED else 0,
            seed=(seed, index),
        )


def _draw_clock(kind: ClipKind, seconds: float, rng: np.random.Generator) -> Clock:
    if kind is ClipKind.VARIABLE_RATE:
        shortest, longest = (round(s * VARIABLE_TICKS_HZ) for s in FRAME_S)
        steps = rng.integers(shortest, longest, int(seconds / FRAME_S[0]) + 2, endpoint=True)
        ticks = np.concatenate([[0], np.cumsum(steps)])
        return Clock(tick_s=Fraction(1, VARIABLE_TICKS_HZ), ticks=ticks[ticks < seconds * VARIABLE_TICKS_HZ], rate_hz=Fraction(30))
    rate_hz = RATES_HZ.get(kind, Fraction(30))
    first = round(LATE_VIDEO_S * rate_hz.numerator) if kind is ClipKind.LATE_VIDEO_TURNED else 0
    count = math.ceil(Fraction(seconds) * rate_hz)
    return Clock(tick_s=Fraction(1, rate_hz.numerator), ticks=first + rate_hz.denominator * np.arange(count), rate_hz=rate_hz)


def _draw_subjects(name: str, kind: ClipKind, seconds: float, rng: np.random.Generator) -> tuple[Subject, ...]:
    if kind is ClipKind.TWO_PEOPLE:
        sides: tuple[tuple[Person, float], ...] = (("left", 104.0), ("right", 312.0))
        return tuple(
            Subject.draw(f"{name}_{side}", side, Place(home=(x, 146.0), reach=(16.0, 12.0), scale=float(rng.uniform(*DOUBLE_SCALE))), rng)
            for side, x in sides
        )
    away_s = (seconds / 3, 2 * seconds / 3) if kind is ClipKind.NO_FACE_STRETCH else None
    place = Place(home=(208.0, 146.0), reach=(54.0, 14.0), scale=float(rng.uniform(*SINGLE_SCALE)))
    return (Subject.draw(name, "main", place, rng, away_s),)


def _draw_voice(kind: ClipKind, subjects: tuple[Subject, ...], seconds: float, rng: np.random.Generator) -> Voice | None:
    if kind is ClipKind.NO_AUDIO:
        return None
    start_s = {ClipKind.LATE_AUDIO: LATE_AUDIO_S, ClipKind.LATE_VIDEO_TURNED: -LATE_VIDEO_S}.get(kind, 0.0)
    return Voice.draw([subject.arousal for subject in subjects], start_s, seconds, rng)
