"""Being told to stop: what the signals do in the block, and that all is as before after it."""

from __future__ import annotations

import signal
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest

from pipeline.stopping import SIGNALS, TerminatedError, check, put_off, terminable


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def test_the_signals_end_the_block() -> None:
    for number in SIGNALS:
        handler = signal.getsignal(number)
        with pytest.raises(TerminatedError, match=f"^{signal.Signals(number).name}$"), terminable():
            signal.raise_signal(number)
        assert signal.getsignal(number) == handler


def test_ctrl_c_is_left_as_it_is() -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$") as raised, terminable():
        signal.raise_signal(signal.SIGINT)
    assert not isinstance(raised.value, TerminatedError)


def test_what_was_there_before_is_there_after() -> None:
    heard: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: heard.append(number))
    with terminable():
        pass
    for number in SIGNALS:
        signal.raise_signal(number)
    assert heard == list(SIGNALS)


def test_who_does_not_mind_hanging_up_still_does_not() -> None:
    """nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with terminable():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_in_another_thread_it_does_nothing() -> None:
    """Python would refuse."""
    seen: list[object] = []

    def run() -> None:
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, TerminatedError), (signal.SIGINT, KeyboardInterrupt)])
def test_what_is_put_off_is_heard_when_the_block_ends(number: int, kind: type[BaseException]) -> None:
    done: list[str] = []

    def work() -> None:
        with terminable():
            with put_off():
                for _ in range(3):  # impatience changes nothing
                    signal.raise_signal(number)
                done.append("inside")
            done.append("after it")

    before = [signal.getsignal(one) for one in (signal.SIGINT, *SIGNALS)]
    with pytest.raises(kind, match=r"^(SIGTERM)?$"):
        work()
    assert done == ["inside"]
    assert [signal.getsignal(one) for one in (signal.SIGINT, *SIGNALS)] == before


def test_where_nothing_is_to_be_put_off_all_goes_on() -> None:
    with terminable(), put_off():
        pass
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with put_off():
        signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_an_error_goes_on_where_nobody_told_anything() -> None:
    with pytest.raises(ZeroDivisionError, match="a defect"), put_off():
        raise ZeroDivisionError("a defect")


def test_whoever_is_told_to_stop_stops_whatever_goes_wrong_meanwhile() -> None:
    def work() -> None:
        with terminable(), put_off():
            signal.raise_signal(signal.SIGTERM)
            raise ZeroDivisionError("a defect")

    with pytest.raises(TerminatedError, match="SIGTERM"):
        work()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_dropped_is_raised_again(number: signal.Signals) -> None:
    """Python drops what comes up in a finalizer."""

    class Finalized:
        def __del__(self) -> None:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt, match=r"^(SIG[A-Z]+)?$"), terminable():  # noqa: PT012
        Finalized()
        check()
    with terminable():
        check()


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGINT])
def test_what_python_drops_is_not_told_and_is_raised_again(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal in a weak reference's callback. Other errors there are told as ever."""

    class Thing:
        pass

    def refuse(_: object) -> None:
        raise ValueError("another error")

    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: told.append(dropped.exc_value))
    with pytest.raises(KeyboardInterrupt, match=r"^(SIG[A-Z]+)?$"), terminable():  # noqa: PT012  # what is dropped, and what raises it again
        thing, other = Thing(), Thing()
        kept = [weakref.ref(thing, lambda _: signal.raise_signal(number)), weakref.ref(other, refuse)]
        del thing, other
        assert [str(each) for each in told] == ["another error"]
        assert len(kept) == 2
        check()
    assert [type(each) for each in told] == [ValueError]
