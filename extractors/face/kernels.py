"""The inner loops of area scaling, compiled by Numba when they are first asked for. They do not hold Python's lock.

Both fill out, (K, 3, h, w) float32 from -1 to 1, with the means of cells: picture: (K,), cells: (K, 2, 4) int64, as in `areas.Areas.means`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from extractors.contract import Float32, Int64, UInt8

# What P-, R- and O-Net were trained on: from -1 to 1.
MEAN, SCALE = 127.5, 0.0078125

_ITEMS = "int64[::1], int64[:, :, ::1], float32[:, :, :, ::1]"


@cache
def from_sums() -> Callable[..., None]:
    return _compiled(_from_sums, f"void(int32[:, ::1], int64[::1], int64[::1], {_ITEMS})")


@cache
def from_pixels() -> Callable[..., None]:
    return _compiled(_from_pixels, f"void(uint8[:, ::1], int64, {_ITEMS})")


def _compiled(kernel: Callable[..., None], signature: str) -> Callable[..., None]:
    """Numba keeps it on disk, beside this file or in the user's cache: compiling takes a second."""
    from numba import njit

    compiled: Callable[..., None]
    try:
        compiled = njit(signature, nogil=True, cache=True, error_model="numpy")(kernel)
    except RuntimeError:  # neither place can be written to
        compiled = njit(signature, nogil=True, error_model="numpy")(kernel)
    return compiled


def _from_sums(table: Any, first: Int64, stride: Int64, picture: Int64, cells: Int64, out: Float32) -> None:
    """table: (S, 3) int32, first, stride: (N,) int64: of `SummedAreas`, whose sums may wrap around."""
    height, width = out.shape[2:]
    left, right = np.empty(width, np.int64), np.empty(width, np.int64)
    for k in range(len(picture)):
        y_origin, y_side, y_n, y_number = cells[k, 0]
        x_origin, x_side, x_n, x_number = cells[k, 1]
        for j in range(width):
            left[j] = first[picture[k]] + x_origin + (x_number + j) * x_side // x_n
            right[j] = first[picture[k]] + x_origin + ((x_number + j + 1) * x_side + x_n - 1) // x_n
        for i in range(height):
            top = y_origin + (y_number + i) * y_side // y_n
            bottom = y_origin + ((y_number + i + 1) * y_side + y_n - 1) // y_n
            above, below = top * stride[picture[k]], bottom * stride[picture[k]]
            n_rows = np.float32(bottom - top)
            for j in range(width):
                n_columns = np.float32(right[j] - left[j])
                a, b, c, d = above + left[j], above + right[j], below + left[j], below + right[j]
                for channel in range(3):
                    total = np.int32(table[d, channel] - table[b, channel] - table[c, channel] + table[a, channel])
                    out[k, channel, i, j] = (np.float32(total) / n_rows / n_columns - np.float32(MEAN)) * np.float32(SCALE)


def _from_pixels(pixels: UInt8, number: int, picture: Int64, cells: Int64, out: Float32) -> None:
    """pixels: (H, 3 W) uint8, of the picture of this number: out[k] is filled where picture[k] == number."""
    height, width = out.shape[2:]
    left, right = np.empty(width, np.int64), np.empty(width, np.int64)
    sums = np.empty(pixels.shape[1], np.int32)
    for k in range(len(picture)):
        if picture[k] != number:
            continue
        y_origin, y_side, y_n, y_number = cells[k, 0]
        x_origin, x_side, x_n, x_number = cells[k, 1]
        begin = 3 * (x_number * x_side // x_n)
        for j in range(width):
            left[j] = 3 * ((x_number + j) * x_side // x_n) - begin
            right[j] = 3 * (((x_number + j + 1) * x_side + x_n - 1) // x_n) - begin
        begin += 3 * x_origin
        length = right[width - 1]
        columns = sums[:length]
        for i in range(height):
            top = y_origin + (y_number + i) * y_side // y_n
            bottom = y_origin + ((y_number + i + 1) * y_side + y_n - 1) // y_n
            row = pixels[top, begin : begin + length]  # loops over such views become vector instructions
            for x in range(length):
                columns[x] = row[x]
            for y in range(top + 1, bottom):
                row = pixels[y, begin : begin + length]
                for x in range(length):
                    columns[x] += row[x]
            n_rows = np.float32(bottom - top)
            for j in range(width):
                n_columns = np.float32((right[j] - left[j]) // 3)
                red = green = blue = np.int32(0)
                for x in range(left[j], right[j], 3):
                    red += columns[x]
                    green += columns[x + 1]
                    blue += columns[x + 2]
                out[k, 0, i, j] = (np.float32(red) / n_rows / n_columns - np.float32(MEAN)) * np.float32(SCALE)
                out[k, 1, i, j] = (np.float32(green) / n_rows / n_columns - np.float32(MEAN)) * np.float32(SCALE)
                out[k, 2, i, j] = (np.float32(blue) / n_rows / n_columns - np.float32(MEAN)) * np.float32(SCALE)
