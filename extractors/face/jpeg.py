"""Face crops as JPEG: RGB arrays in, bytes out, and back."""

from __future__ import annotations

import numpy as np

from extractors.contract import ExtractorError, UInt8

SOI = b"\xff\xd8\xff"  # how every JPEG file begins
EOI = b"\xff\xd9"  # how every complete one ends


def encode(crop: UInt8, quality: int) -> bytes:
    """(H, W, 3) uint8 RGB -> a JPEG file. quality: 1 to 100."""
    import cv2

    done, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ExtractorError("a face crop could not be written as JPEG", why=f"OpenCV refused {crop.shape}", fix="report this as a defect")
    return data.tobytes()


def decode(data: bytes) -> UInt8 | None:
    """A picture file (JPEG, PNG, ...) -> (H, W, 3) uint8 RGB, grey repeated and alpha dropped; None where it is not a whole picture."""
    import cv2

    if not data or (data.startswith(SOI) and EOI not in data[-64:]):
        return None  # OpenCV fills the missing part of a cut JPEG with grey and says nothing
    picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    return None if picture is None else np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)


def is_plain(data: bytes, size_px: int) -> bool:
    """True for a JPEG of size_px x size_px with three channels and no turn to apply: it can be kept byte for byte."""
    import cv2

    if not data.startswith(SOI):
        return False
    raw = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    seen = decode(data)
    return raw is not None and seen is not None and seen.shape == (size_px, size_px, 3) and np.array_equal(raw[..., ::-1], seen)


def check_quality(quality: int) -> None:
    """Raises ValueError, the parameter's name first."""
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"jpeg_quality: expected a whole number from 1 to 100, got {quality!r}")


def check_size(size_px: int) -> None:
    """Raises ValueError, the parameter's name first. 16 to 1024 pixels: what face networks take."""
    if isinstance(size_px, bool) or not isinstance(size_px, int) or not 16 <= size_px <= 1024:
        raise ValueError(f"size_px: expected a whole number of pixels from 16 to 1024, got {size_px!r}")
