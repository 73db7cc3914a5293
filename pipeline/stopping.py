"""Being told to stop: SIGTERM, and SIGHUP of a terminal that is gone, end a run as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class TerminatedError(KeyboardInterrupt):
    """The process was told to end."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """In the block these signals raise TerminatedError, where it is in the main thread; elsewhere Python cannot hear them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _stop) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> None:
    raise TerminatedError(signal.Signals(number).name)
