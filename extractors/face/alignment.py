"""Where a crop lies in its picture: five landmarks onto the ArcFace template, or a square about the box. Then a bilinear warp."""

from __future__ import annotations

import numpy as np

from extractors.contract import Bool, Float32, Float64, FloatArray, UInt8

# Where the eyes, the nose and the mouth's corners lie in a 112 x 112 crop: Deng et al., "ArcFace" (CVPR 2019), as published with
# the insightface code. (5, 2) x, y in pixels; eye and mouth corner on the picture's left come first.
TEMPLATE_112 = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
TEMPLATE_PX = 112
# Landmarks closer together than this (root mean square, in pixels) have no direction that could be turned upright.
MIN_SPREAD_PX = 1e-2


def template(size_px: int) -> Float64:
    """(5, 2) float64: the template scaled from 112 to `size_px` pixels, so that every size shows the same part of the face."""
    return np.asarray(TEMPLATE_112 * (size_px / TEMPLATE_PX), dtype=np.float64)


def similarity(landmarks: FloatArray, size_px: int) -> tuple[Float64, Bool]:
    """Least-squares similarity transforms of landmarks onto the template: rotation, one scale, shift; no reflection.

    landmarks: (N, 5, 2) x, y in source pixels. Gives matrices (N, 2, 3) float64, x' = M [x, y, 1], and usable (N,) bool, False (and
    NaN in the matrix) where the landmarks are not finite, coincide, or are the template's mirror image.

    In the plane Umeyama's solution (IEEE TPAMI 13(4), 1991, eq. 40-43 with a proper rotation) is a single complex number: with
    both sets centred, the factor a that minimises sum |a z - w|^2 is sum conj(z) w / sum |z|^2. In real numbers: no landmark's
    outcome then depends on how many others are worked out with it.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(f"landmarks: expected (N, 5, 2), got {points.shape}")
    points = np.where(np.isfinite(points), points, np.nan)  # infinity would warn wherever it is subtracted from itself
    target = template(size_px)
    target_mean = target.mean(axis=0)
    w = target - target_mean
    mean = points.mean(axis=1)
    z = points - mean[:, None]
    spread = np.square(z).reshape(-1, 10).sum(axis=1)
    turn = np.stack([(z * w).reshape(-1, 10).sum(axis=1), (z[..., 0] * w[:, 1] - z[..., 1] * w[:, 0]).sum(axis=1)], axis=1)
    usable = np.isfinite(spread) & (spread > 5 * MIN_SPREAD_PX**2)
    factor = np.full_like(turn, np.nan)
    np.divide(turn, spread[:, None], out=factor, where=usable[:, None])
    usable &= np.hypot(*factor.T) * np.sqrt(spread) * (TEMPLATE_PX / size_px) > MIN_SPREAD_PX
    factor[~usable] = np.nan
    return _matrices(factor[:, 0], factor[:, 1], mean, target_mean), usable


def square(boxes: Float32, size_px: int, margin: float) -> tuple[Float64, Bool]:
    """Scalings of the square about each box onto the whole crop: no rotation, proportions kept, and no landmark asked.

    boxes: (N, 4) x1 y1 x2 y2 in source pixels, half-open. The square has the box's centre, and its longer side enlarged by `margin`
    of itself on each end. Gives matrices and usable as `similarity` does; usable is False where a box is not finite or is empty.
    """
    edges = np.asarray(boxes, dtype=np.float64)
    if edges.ndim != 2 or edges.shape[1] != 4:
        raise ValueError(f"boxes: expected (N, 4), got {edges.shape}")
    edges = np.where(np.isfinite(edges), edges, np.nan)
    sides = edges[:, 2:] - edges[:, :2]
    usable = np.asarray((sides > 0).all(axis=1), dtype=np.bool_)
    scale = np.full(len(edges), np.nan)
    np.divide(size_px, sides.max(axis=1) * (1 + 2 * margin), out=scale, where=usable)
    # Pixel i of a picture lies from i to i + 1, and warping knows it by its centre as i.
    middle = (edges[:, :2] + edges[:, 2:]) / 2 - 0.5
    return _matrices(scale, np.zeros(len(edges)), middle, np.full(2, (size_px - 1) / 2)), usable


def _matrices(real: Float64, imaginary: Float64, source: Float64, target: Float64) -> Float64:
    """(N, 2, 3): turned and scaled by a complex factor, so that the points `source` (N, 2) come to lie on `target` (2,)."""
    shift_x = target[0] - (real * source[:, 0] - imaginary * source[:, 1])
    shift_y = target[1] - (imaginary * source[:, 0] + real * source[:, 1])
    return np.stack([real, -imaginary, shift_x, imaginary, real, shift_y], axis=1).reshape(-1, 2, 3)


def warp(image: UInt8, matrix: Float64, size_px: int) -> UInt8:
    """(H, W, 3) uint8 and one (2, 3) matrix -> (size_px, size_px, 3) uint8: bilinear, black outside the picture.

    Four pixels of the picture make one of the crop, however large the face is: a large one is not smoothed, as in the published
    systems, whose networks were trained on such crops.
    """
    import cv2

    _fetch(image, matrix, size_px)
    crop = cv2.warpAffine(image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0))
    return np.asarray(crop, dtype=np.uint8)


def _fetch(image: UInt8, matrix: Float64, size_px: int) -> None:
    """Read what the crop shows row by row, so that it is in the processor's caches. A warp reads it aslant, and waits for memory half
    its time: 0.19 ms for a face of 400 px that was not looked at lately, 0.11 with this."""
    (a, b, x), (c, d, y) = matrix.tolist()
    scale = a * d - b * c
    if not scale:
        return
    corners = [(u - x, v - y) for u in (0, size_px) for v in (0, size_px)]
    xs, ys = [(d * u - b * v) / scale for u, v in corners], [(a * v - c * u) / scale for u, v in corners]
    seen = image[max(int(min(ys)), 0) : max(int(max(ys)) + 2, 0), max(int(min(xs)), 0) : max(int(max(xs)) + 2, 0)]
    if seen.size:
        seen.reshape(len(seen), -1).max()
