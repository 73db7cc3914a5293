"""The pictures that every visual extractor is given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from extractors.contract import Float32, UInt8

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def normalised(crops: UInt8, mean: Sequence[float], std: Sequence[float]) -> Float32:
    """(N, S, S, 3) uint8 -> (N, 3, S, S) float32: (x / 255 - mean) / std, per channel."""
    scaled = (crops.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.asarray(scaled.transpose(0, 3, 1, 2), np.float32)


def check_crops(crops: UInt8, size_px: int) -> None:
    """Raises ValueError unless crops are (N, size_px, size_px, 3) uint8: floating ones would be scaled twice without a word."""
    if crops.shape[1:] != (size_px, size_px, 3) or crops.dtype != np.uint8:
        raise ValueError(f"crops: expected (N, {size_px}, {size_px}, 3) uint8, got {crops.shape} {crops.dtype}")
