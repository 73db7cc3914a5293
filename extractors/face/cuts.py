"""Hard cuts: where one camera's picture ends and another begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from extractors.contract import UInt8

THUMB_PX = 32
# At a cut the thumbnail changes by this much on average (of 255), and by so many times more than it lately did. Inside the shots of
# nine clips, crowds and a shaken camera among them, it changed by up to 28 (2.2 times its average); at their cuts by 47 and more.
MIN_CHANGE = 25.0
MIN_RATIO = 3.0
MEMORY = 0.8


class Cuts:
    """Counts shots while frames pass by. A frame is compared with the one before it only, so a flash of light counts as two cuts."""

    def __init__(self) -> None:
        self._shot = 0
        self._shape: Sequence[int] | None = None
        self._last: npt.NDArray[np.int16] | None = None
        self._usual = 0.0

    def shot(self, image: UInt8) -> int:
        """The number of the shot that the next frame, (H, W, 3) uint8, belongs to: from 0. A change of the picture's size is a cut."""
        import cv2

        thumb = cv2.resize(image, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_LINEAR).astype(np.int16)
        if self._last is not None:
            change = float(np.abs(thumb - self._last).mean())
            if image.shape != self._shape or (change > MIN_CHANGE and change > MIN_RATIO * self._usual):
                self._shot += 1
                self._usual = 0.0
            else:
                self._usual = MEMORY * self._usual + (1 - MEMORY) * change
        self._last, self._shape = thumb, image.shape
        return self._shot
