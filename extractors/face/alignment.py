"""Five landmarks -> an aligned crop: the similarity transform onto the ArcFace template, then a bilinear warp."""

from __future__ import annotations

import numpy as np

from extractors.contract import Bool, Float64, FloatArray, UInt8

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
    both sets centred, the factor a that minimises sum |a z - w|^2 is sum conj(z) w / sum |z|^2.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (5, 2):
        raise ValueError(f"landmarks: expected (N, 5, 2), got {points.shape}")
    target = template(size_px)
    z = points[..., 0] + 1j * points[..., 1]
    w = target[:, 0] + 1j * target[:, 1]
    z_mean, w_mean = z.mean(axis=1), w.mean()
    centred = z - z_mean[:, None]
    spread = (np.abs(centred) ** 2).sum(axis=1)
    usable = np.isfinite(spread) & (spread > 5 * MIN_SPREAD_PX**2)
    factor = np.full(len(points), np.nan + 0j)
    np.divide((np.conj(centred) * (w - w_mean)).sum(axis=1), spread, out=factor, where=usable)
    usable &= np.abs(factor) * np.sqrt(spread) > MIN_SPREAD_PX
    factor[~usable] = complex(np.nan, np.nan)
    shift = w_mean - factor * z_mean
    top = np.stack([factor.real, -factor.imag, shift.real], axis=-1)
    bottom = np.stack([factor.imag, factor.real, shift.imag], axis=-1)
    return np.stack([top, bottom], axis=1), usable


def warp(image: UInt8, matrix: Float64, size_px: int) -> UInt8:
    """(H, W, 3) uint8 and one (2, 3) matrix -> (size_px, size_px, 3) uint8: bilinear, black outside the picture."""
    import cv2

    crop = cv2.warpAffine(image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(0, 0, 0))
    return np.asarray(crop, dtype=np.uint8)
