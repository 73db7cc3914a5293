"""The pictures that every visual extractor is given."""

from __future__ import annotations

import numpy as np

from extractors.contract import UInt8


def check_crops(crops: UInt8, size_px: int) -> None:
    """Raises ValueError unless crops are (N, size_px, size_px, 3) uint8: floating ones would be scaled twice without a word."""
    if crops.shape[1:] != (size_px, size_px, 3) or crops.dtype != np.uint8:
        raise ValueError(f"crops: expected (N, {size_px}, {size_px}, 3) uint8, got {crops.shape} {crops.dtype}")
