"""Being told to stop: SIGTERM, and SIGHUP of a terminal that is gone, end a run as Ctrl-C does."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGHUP)

_heard: list[int] = []


class TerminatedError(KeyboardInterrupt):
    """The process was told to end."""


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """In the block these signals raise TerminatedError, where it is in the main thread; elsewhere Python cannot hear them.

    Where that comes up in a finalizer or a weak reference's callback, Python drops it and says so at length: that is kept quiet, as `check`
    raises it again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _heard.clear()
    before = {number: signal.signal(number, _stop) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, _stop)
    tell_dropped = sys.unraisablehook

    def tell_others(dropped: sys.UnraisableHookArgs) -> None:
        if not (_heard and isinstance(dropped.exc_value, KeyboardInterrupt)):
            tell_dropped(dropped)

    sys.unraisablehook = tell_others
    try:
        yield
    finally:
        sys.unraisablehook = tell_dropped
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raises what a signal raised already: where that came up in a finalizer or a weak reference's callback, Python has dropped it."""
    if _heard:
        _raise(_heard[0])


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """In the block being told to stop is only noted, Ctrl-C too; it is heard when the block ends. For what is soon done, or else a mess."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = [number for number in (signal.SIGINT, *SIGNALS) if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if heard:
            signal.raise_signal(heard[0])


def _stop(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    _raise(number)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise TerminatedError(signal.Signals(number).name)
