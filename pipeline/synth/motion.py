"""Who is in a sample clip, and how they feel and move: closed curves over time, so that every frame's truth is known.

Times are in seconds on the video's clock. Positions are in pixels of the upright picture, x to the right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from extractors.contract import Float64, FloatArray, Person

STEP_S = 1 / 200  # of the integral that turns a head's rate into its phase
SWAYS_HZ = (0.2, 0.9)  # how fast a head sways, from the calmest to the most aroused
TILT_DEG = 8.0
SIZE_SWING = 0.08  # the part by which a face grows and shrinks


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A smooth function of time with values in [-1, 1]: a squashed sum of slow sine waves."""

    rates_hz: Float64
    phases_rad: Float64
    weights: Float64

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Curve:
        weights = rng.uniform(0.5, 1.0, 4)
        return cls(rates_hz=rng.uniform(0.08, 0.6, 4), phases_rad=rng.uniform(0, 2 * np.pi, 4), weights=weights / weights.sum())

    def at(self, times_s: FloatArray) -> Float64:
        """(T,) times -> (T,) values in [-1, 1]."""
        angles = 2 * np.pi * np.multiply.outer(np.asarray(times_s, dtype=np.float64), self.rates_hz) + self.phases_rad
        return np.asarray(np.tanh(2.2 * (np.sin(angles) @ self.weights)) / np.tanh(2.2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a head may be: home and reach are (x, y) in pixels, scale is the photograph's size in the picture."""

    home: tuple[float, float]
    reach: tuple[float, float]
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Poses:
    """centre: (T, 2) of the face in pixels; scale: (T,); tilt_rad: (T,), positive is clockwise as seen."""

    centre: Float64
    scale: Float64
    tilt_rad: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One person of a clip, whose annotations are one trial."""

    trial: str
    person: Person
    valence: Curve
    arousal: Curve
    place: Place
    phases_rad: Float64
    mirrored: bool
    away_s: tuple[float, float] | None = None

    @classmethod
    def draw(cls, trial: str, person: Person, place: Place, rng: np.random.Generator, away_s: tuple[float, float] | None = None) -> Subject:
        valence, arousal = Curve.draw(rng), Curve.draw(rng)
        phases_rad, mirrored = rng.uniform(0, 2 * np.pi, 4), person == "right"
        return cls(
            trial=trial,
            person=person,
            valence=valence,
            arousal=arousal,
            place=place,
            phases_rad=phases_rad,
            mirrored=mirrored,
            away_s=away_s,
        )

    def present(self, times_s: Float64) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """(T,) bool: the face is in the picture. The stretch away is half-open."""
        start_s, stop_s = self.away_s or (0.0, 0.0)
        return np.asarray((times_s < start_s) | (times_s >= stop_s))

    def poses(self, times_s: Float64) -> Poses:
        """(T,) times from 0 on -> poses: the more aroused, the faster and the wider the head moves."""
        grid_s = np.arange(0.0, float(times_s[-1]) + 2 * STEP_S, STEP_S)
        sways_hz = np.interp(self.arousal.at(grid_s), (-1, 1), SWAYS_HZ)
        sway = np.interp(times_s, grid_s, 2 * np.pi * STEP_S * (np.cumsum(sways_hz) - sways_hz[0]))
        width = np.interp(self.arousal.at(times_s), (-1, 1), (0.35, 1.0))
        swing = [width * np.sin(pace * sway + phase) for pace, phase in zip((1.0, 1.7, 0.6, 1.3), self.phases_rad, strict=True)]
        x, y = (home + reach * s for home, reach, s in zip(self.place.home, self.place.reach, swing[:2], strict=True))
        return Poses(
            centre=np.stack([x, y], axis=1), scale=self.place.scale * (1 + SIZE_SWING * swing[2]), tilt_rad=np.radians(TILT_DEG) * swing[3]
        )
