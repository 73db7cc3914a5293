"""A picture of how faces are followed: moments of a video with boxes, landmarks and ids, their crops, and every track over time.

    python benchmarks/face_picture.py CLIP [CLIP ...] OUT.png

Several clips of one size are shown one after the other, with a hard cut between. docs/faces.png is made of `affectpipe sample`'s
video5.mp4 and video31.mp4, of four seconds each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from extractors.contract import Faces, Float64, Frames, Int64, Person, Runtime, UInt8
from extractors.face.alignment import similarity, warp
from extractors.face.mtcnn import Mtcnn, MtcnnParams
from pipeline import video
from pipeline.errors import AffectpipeError

N_MOMENTS = 6
PERSONS: tuple[Person, ...] = ("main", "left", "right")
CELL_PX, CROP_PX, GAP_PX, SIDE_PX, ROW_PX = 320, 112, 14, 110, 34
WHITE, INK, PALE = (255, 255, 255), (50, 50, 50), (205, 205, 205)
# RGB, told apart by people who see red and green alike too: Okabe and Ito, "Color universal design" (2008).
COLOURS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
FONT = cv2.FONT_HERSHEY_DUPLEX


@dataclass(slots=True)
class Reel:
    """The clips one after the other. starts_s: of each clip; kept: the pictures of the moments, by frame number."""

    clips: Sequence[Path]
    times_s: Float64
    starts_s: list[float]
    moments: Int64
    kept: dict[int, UInt8] = field(default_factory=dict)

    @classmethod
    def of(cls, clips: Sequence[Path]) -> Reel:
        times, starts_s, end_s = [], [], 0.0
        for clip in clips:
            times.append(video.frame_times(clip).times_s + end_s)
            starts_s.append(end_s)
            end_s = float(times[-1][-1] + np.median(np.diff(times[-1])))
        times_s = np.concatenate(times)
        wanted_s = (np.arange(N_MOMENTS) + 0.5) / N_MOMENTS * times_s[-1]
        return cls(clips, times_s, starts_s, np.searchsorted(times_s, wanted_s))

    def batches(self) -> Iterator[Frames]:
        first = 0
        for clip in self.clips:
            n = len(video.frame_times(clip).times_s)
            for frames in video.frames(clip, np.arange(n), n):
                index = frames.index + first
                for i in np.flatnonzero(np.isin(index, self.moments)):
                    self.kept[int(index[i])] = frames.images[i].copy()
                yield Frames(images=frames.images, times_s=self.times_s[index], index=index)
            first += n


def colour(track: int) -> tuple[int, int, int]:
    return COLOURS[track % len(COLOURS)]


def write(canvas: UInt8, text: str, x: float, y: float, rgb: tuple[int, int, int] = INK, scale: float = 0.5) -> None:
    cv2.putText(canvas, text, (round(x), round(y)), FONT, scale, rgb, 1, cv2.LINE_AA)


def moment(reel: Reel, faces: Faces, frame: int) -> UInt8:
    """One picture with its faces drawn, and their crops under it."""
    image, found = reel.kept[frame], faces.found
    mine = np.flatnonzero(found.frame == frame)
    scale = CELL_PX / image.shape[1]
    height = round(image.shape[0] * scale)
    cell = np.full((height + GAP_PX + CROP_PX, CELL_PX, 3), 255, np.uint8)
    cell[:height] = cv2.resize(image, (CELL_PX, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    matrices, _ = similarity(found.landmarks[mine], CROP_PX)
    left = (CELL_PX - len(mine) * (CROP_PX + GAP_PX) + GAP_PX) // 2
    for number, matrix in sorted(zip(mine.tolist(), matrices, strict=True), key=lambda pair: float(found.boxes[pair[0], 0])):
        track = int(found.track[number])
        x1, y1, x2, y2 = (found.boxes[number] * scale).round().astype(int).tolist()
        cv2.rectangle(cell, (x1, y1), (x2, y2), colour(track), 2, cv2.LINE_AA)
        for point in found.landmarks[number]:
            cv2.circle(cell, [round(16 * float(value) * scale) for value in point], 16 * 3, WHITE, -1, cv2.LINE_AA, 4)
            cv2.circle(cell, [round(16 * float(value) * scale) for value in point], 16 * 2, colour(track), -1, cv2.LINE_AA, 4)
        cv2.rectangle(cell, (x1 - 1, y1 - 20), (x1 + 22, y1), colour(track), -1)
        write(cell, str(track), x1 + 6, y1 - 5, WHITE)
        crop = cell[height + GAP_PX :, left : left + CROP_PX]
        crop[:] = warp(image, matrix, CROP_PX)
        cv2.rectangle(crop, (0, 0), (CROP_PX - 1, CROP_PX - 1), colour(track), 2)
        left += CROP_PX + GAP_PX
    if not len(mine):
        write(cell, "no face", CELL_PX / 2 - 32, height + GAP_PX + CROP_PX / 2, INK)
    return cell


def spans(times_s: Float64, rows: Int64) -> list[tuple[float, float]]:
    """Where ascending rows have no hole between them: [start, end) in seconds."""
    shown_s = np.append(np.diff(times_s), np.median(np.diff(times_s)))
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    return [(float(times_s[part[0]]), float(times_s[part[-1]] + shown_s[part[-1]])) for part in parts if len(part)]


def lanes(faces: dict[Person, Faces]) -> list[tuple[str, dict[int, Int64]]]:
    """Rows of the time line: a label, and by track the frames that it has there."""
    found = faces["main"].found
    tracks = np.unique(found.track).tolist()
    rows = [(f"track {track}", {track: found.frame[found.track == track]}) for track in tracks]
    for person, theirs in faces.items():
        rows.append((person, {track: theirs.frame[theirs.track == track] for track in tracks}))
    return rows


def timeline(reel: Reel, faces: dict[Person, Faces], width: int) -> UInt8:
    rows = lanes(faces)
    canvas = np.full((len(rows) * ROW_PX + 40 + GAP_PX, width, 3), 255, np.uint8)
    end_s, bottom = float(reel.times_s[-1] + np.median(np.diff(reel.times_s))), len(rows) * ROW_PX + GAP_PX

    def x(time_s: float) -> int:
        return SIDE_PX + round(time_s / end_s * (width - SIDE_PX - 2 * GAP_PX))

    for second in range(int(end_s) + 1):
        cv2.line(canvas, (x(second), bottom), (x(second), bottom + 6), INK, 1)
        write(canvas, f"{second} s", x(second) - 8, bottom + 24, INK, 0.45)
    for frame in reel.moments.tolist():
        at = x(float(reel.times_s[frame]))
        cv2.line(canvas, (at, 0), (at, bottom), PALE, 2)
    for start_s in reel.starts_s[1:]:
        for top in range(0, bottom, 10):
            cv2.line(canvas, (x(start_s), top), (x(start_s), top + 5), INK, 2)
        write(canvas, "cut", x(start_s) + 6, 12, INK, 0.45)
    for number, (label, by_track) in enumerate(rows):
        y = number * ROW_PX + GAP_PX
        write(canvas, label, 4, y + 20)
        for track, frames in by_track.items():
            for start_s, stop_s in spans(reel.times_s, frames):
                cv2.rectangle(canvas, (x(start_s), y + 6), (x(stop_s), y + ROW_PX - 8), colour(track), -1)
    cv2.line(canvas, (SIDE_PX, bottom), (width - 2 * GAP_PX, bottom), INK, 1)
    return canvas


def draw(reel: Reel, faces: dict[Person, Faces]) -> UInt8:
    cells = [moment(reel, faces["main"], frame) for frame in reel.moments.tolist()]
    width = N_MOMENTS * (CELL_PX + GAP_PX) + GAP_PX
    strip = np.full((cells[0].shape[0] + 3 * GAP_PX + 16, width, 3), 255, np.uint8)
    for number, (cell, frame) in enumerate(zip(cells, reel.moments.tolist(), strict=True)):
        left = GAP_PX + number * (CELL_PX + GAP_PX)
        write(strip, f"{reel.times_s[frame]:.2f} s", left, 22)
        strip[GAP_PX + 16 : GAP_PX + 16 + cell.shape[0], left : left + CELL_PX] = cell
    return np.concatenate([strip, timeline(reel, faces, width)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="+", metavar="CLIP")
    parser.add_argument("out", type=Path, metavar="OUT.png")
    options = parser.parse_args()
    try:
        reel = Reel.of(options.clips)
        faces = dict(Mtcnn(MtcnnParams(), Runtime()).follow(reel.batches(), PERSONS))
    except AffectpipeError as error:
        sys.exit(str(error))
    if not cv2.imwrite(str(options.out), cv2.cvtColor(draw(reel, faces), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        sys.exit(f"{options.out}: cannot be written; give the name of a .png file in a folder that is there")


if __name__ == "__main__":
    main()
