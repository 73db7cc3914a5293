"""The pictures of a sample clip: a real face over a drawn background, and the frame's number in its lowest rows.

The face is scikit-image's astronaut (Eileen Collins, NASA, public domain). Valence bends the mouth and nothing else.
Pictures are (H, W, 3) uint8 RGB, upright; positions are in pixels, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from extractors.contract import Bool, Float32, Float64, UInt8
from pipeline.synth.motion import Poses, Subject

HEIGHT, WIDTH = 304, 416
BLOCK_PX, BITS, SYNC = 16, 16, (1, 0)  # of the frame code; the sync blocks stand on both sides of the bits

# In the photograph, as MTCNN sees it (minimum face 20 px): the box's centre and half its size, and the five points.
ANCHOR = np.array([224.4, 116.4])
HALF_BOX = np.array([44.0, 55.7])
POINTS = np.array([[205.4, 101.5], [246.9, 103.1], [225.1, 129.2], [201.2, 139.6], [245.1, 141.1]])
MOUTH = np.array([223.0, 141.0])
MOUTH_HALF_PX, BEND_PX = 22.0, 8.0
# x y of the outline of hair, collar and shoulders, by eye.
OUTLINE = """
203 16  232 13  258 22  281 38  298 58  302 84  296 108  281 128  270 140  262 152  258 168  262 176  278 190  293 210  303 234
322 244  340 263  340 511  110 511  110 300  116 206  122 176  138 158  168 148  186 146  179 134  173 124  158 104  152 84
158 58  172 34  186 22
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """The cut-out photograph, ready to be bent and placed. rgba: (512, 512, 4) uint8, colours premultiplied by alpha."""

    rgba: UInt8
    bend: Float32  # (512, 512) pixels to sample below each pixel, at a valence of 1
    mouth: tuple[slice, slice]  # the part of the photograph that bends

    @classmethod
    def load(cls) -> Portrait:
        """Raises ImportError without scikit-image or OpenCV."""
        import cv2
        from skimage.data import astronaut

        read_photo: Callable[[], UInt8] = astronaut  # scikit-image has no types
        photo = read_photo()
        mask = np.zeros(photo.shape[:2], dtype=np.uint8)
        cv2.fillPoly(mask, [np.array(OUTLINE.split(), dtype=np.int32).reshape(-1, 2)], 255)
        alpha = cv2.GaussianBlur(mask, (0, 0), 2.0)
        rgb = np.rint(photo * (alpha[..., None] / 255.0)).astype(np.uint8)
        x, y = np.meshgrid(np.arange(photo.shape[1], dtype=np.float64), np.arange(photo.shape[0], dtype=np.float64))
        mouth = (slice(104, 178), slice(170, 276))
        return cls(rgba=np.dstack([rgb, alpha]), bend=_bend(x, y).astype(np.float32), mouth=mouth)

    def bent(self, valence: float) -> UInt8:
        """(512, 512, 4) uint8: the corners of the mouth go up where valence is positive, down where it is negative."""
        import cv2

        rows, columns = self.mouth
        x, y = np.meshgrid(np.arange(columns.start, columns.stop, dtype=np.float32), np.arange(rows.start, rows.stop, dtype=np.float32))
        out = self.rgba.copy()
        source_y = y + np.float32(valence) * self.bend[self.mouth]
        out[self.mouth] = cv2.remap(self.rgba, x, source_y, cv2.INTER_LINEAR)
        return out


def _bend(x: Float64, y: Float64) -> Float64:
    """A parabola through the mouth, up at its corners and down in its middle, that fades towards the rest of the face."""
    along, across = (x - MOUTH[0]) / MOUTH_HALF_PX, (y - MOUTH[1]) / MOUTH_HALF_PX
    return np.asarray(BEND_PX * (np.minimum(along**2, 1.5) - 0.4) * np.exp(-((along / 1.6) ** 4) - across**4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Appearance:
    """Per frame of one person: what is drawn, which is also the truth.

    present: (T,) bool; valence: (T,); matrices: (T, 2, 3) photograph -> picture; boxes: (T, 4) x1 y1 x2 y2 of the face;
    landmarks: (T, 5, 2) eye, eye, nose, mouth corner, mouth corner, picture-left first.
    """

    present: Bool
    valence: Float64
    matrices: Float64
    boxes: Float64
    landmarks: Float64
    mirrored: bool

    @classmethod
    def of(cls, subject: Subject, times_s: Float64) -> Appearance:
        poses, valence = subject.poses(times_s), subject.valence.at(times_s)
        matrices = _matrices(poses, subject.mirrored)
        points = np.repeat(POINTS[None], len(times_s), axis=0)
        points[:, 3:, 1] -= valence[:, None] * _bend(POINTS[3:, 0], POINTS[3:, 1])
        landmarks = np.einsum("tij,tkj->tki", matrices[:, :, :2], points) + matrices[:, None, :, 2]
        if subject.mirrored:
            landmarks = landmarks[:, [1, 0, 2, 4, 3]]
        half = poses.scale[:, None] * HALF_BOX
        return cls(
            present=subject.present(times_s),
            valence=valence,
            matrices=matrices,
            boxes=np.concatenate([poses.centre - half, poses.centre + half], axis=1),
            landmarks=landmarks,
            mirrored=subject.mirrored,
        )


def _matrices(poses: Poses, mirrored: bool) -> Float64:
    """(T, 2, 3): mirror, scale and turn about the face's centre, then put that centre in its place."""
    c, s = poses.scale * np.cos(poses.tilt_rad), poses.scale * np.sin(poses.tilt_rad)
    linear = np.stack([np.stack([c, -s], axis=1), np.stack([s, c], axis=1)], axis=1)
    if mirrored:
        linear = linear * np.array([-1.0, 1.0])
    return np.concatenate([linear, (poses.centre - linear @ ANCHOR)[:, :, None]], axis=2)


def draw_background(rng: np.random.Generator) -> UInt8:
    """A wall with a soft light, a few bars and a floor, in colours by seed: (HEIGHT, WIDTH, 3) uint8."""
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    wall = np.array([168.0, 164.0, 158.0]) + rng.uniform(-14, 14, 3)
    light = np.exp(-((x - rng.uniform(-0.6, 0.6)) ** 2) - (y + 0.3) ** 2)
    picture = wall + 40 * light[..., None] - 14
    for left in rng.uniform(-1, 0.9, 3):
        bar = np.clip(40 * (x - left), 0, 1) * np.clip(40 * (left + 0.12 - x), 0, 1)
        picture += bar[..., None] * (rng.uniform(-26, 26) + rng.uniform(-8, 8, 3))
    picture[y > 0.72] -= 30
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)


def render(portrait: Portrait, background: UInt8, people: Sequence[Appearance], frame: int) -> UInt8:
    """One frame with its number: (HEIGHT, WIDTH, 3) uint8."""
    import cv2

    picture = background.copy()
    for one in people:
        if one.present[frame]:
            photo = portrait.bent(float(one.valence[frame]))
            layer = cv2.warpAffine(photo, one.matrices[frame], (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
            behind = cv2.multiply(picture, cv2.cvtColor(255 - layer[..., 3], cv2.COLOR_GRAY2RGB), scale=1 / 255)
            picture = np.asarray(cv2.add(behind, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB)))
    write_frame_number(picture, frame)
    return picture


def frame_code_box() -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 (half-open) of the frame code in the upright picture."""
    return 0, HEIGHT - BLOCK_PX, (BITS + 1 + 2 * len(SYNC)) * BLOCK_PX, HEIGHT


def write_frame_number(picture: UInt8, frame: int) -> None:
    """Draw the number into the picture's lowest rows: sync, 16 bits from the highest, odd parity, sync; white is 1.

    Raises ValueError when the number does not fit in 16 bits.
    """
    if not 0 <= frame < 2**BITS:
        raise ValueError(f"frame: expected 0 to {2**BITS - 1}, got {frame}")
    bits = [frame >> shift & 1 for shift in reversed(range(BITS))]
    blocks = np.array([*SYNC, *bits, 1 - sum(bits) % 2, *SYNC], dtype=np.uint8) * 255
    picture[-BLOCK_PX:, : len(blocks) * BLOCK_PX] = np.repeat(blocks, BLOCK_PX)[None, :, None]


def read_frame_number(image: UInt8) -> int:
    """The frame number drawn in an upright picture of a sample clip, after whatever compression. image: (H, W, 3) uint8.

    Raises ValueError when the picture is of another kind or too small, or no code can be read: blocks neither black nor white,
    other sync blocks or a wrong parity.
    """
    n_blocks = BITS + 1 + 2 * len(SYNC)
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] < BLOCK_PX or image.shape[1] < n_blocks * BLOCK_PX:
        raise ValueError(f"image: expected (H, W, 3) of at least {BLOCK_PX} x {n_blocks * BLOCK_PX} pixels, got {image.shape}")
    strip = image[-BLOCK_PX:, : n_blocks * BLOCK_PX].mean(axis=2).reshape(BLOCK_PX, n_blocks, BLOCK_PX)
    levels = strip[4:-4, :, 4:-4].mean(axis=(0, 2))
    if np.any((levels > 80) & (levels < 175)):
        raise ValueError(f"no frame code: expected black and white blocks, got levels {np.round(levels).astype(int).tolist()}")
    blocks = tuple(int(level > 127) for level in levels)
    if blocks[: len(SYNC)] != SYNC or blocks[-len(SYNC) :] != SYNC:
        raise ValueError(f"no frame code: expected sync blocks {SYNC} on both sides, got {blocks}")
    bits = blocks[len(SYNC) : -len(SYNC)]
    if sum(bits) % 2 != 1:
        raise ValueError(f"frame code: expected odd parity, got {bits}")
    return int("".join(map(str, bits[:-1])), 2)
