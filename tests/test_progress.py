"""What is seen of a run while it goes: on a terminal, elsewhere, and not at all."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import progress
from pipeline.progress import LINE_EVERY_S, Watch, teller
from pipeline.tally import Event

START: Event = {"at_s": 1000.0, "event": "start", "on": "local:2", "host": "h", "pid": 1, "trials": 2, "to_do": {"timeline": 2, "level": 4}}
WORKERS: Event = {"at_s": 1001.0, "event": "workers", "dashboard": "http://127.0.0.1:8787/status", "n_workers": 2}


def job(stage: str, at_s: float, left_s: float | None = None, **fates: str) -> Event:
    told = {"fates": fates, "rows": 100, "left_s": left_s, "where": "h:1"}
    return {"at_s": at_s, "event": "job", "stage": stage, **told}


EVENTS = (
    START,
    WORKERS,
    job("timeline", 1002.0, a="done"),
    job("timeline", 1004.0, 90.0, b="found"),
    job("level", 1005.0, 75.0, a="failed", b="elsewhere"),
    {"at_s": 1006.0, "event": "death", "pack": 4, "stage": "level", "trials": ["b"], "why": ""},
    job("level", 1010.0, 75.0, b="done"),
    {"at_s": 1010.0, "event": "lost", "tracks": {"level": 1}},
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its only number is the time."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_a_line_now_and_then(clock: list[float]) -> None:
    out = io.StringIO()
    with Watch(out=out) as watch:
        for event in EVENTS:
            watch.told(event)
        assert out.getvalue() == "dashboard: http://127.0.0.1:8787/status\n"
        clock[0] += LINE_EVERY_S + 1
        watch.told(EVENTS[-2])
        watch.told(EVENTS[-2])
    said = out.getvalue().splitlines()[1:]
    assert said == ["5/6 tracks, 50 rows/s, 2 workers, 1 failed, 1 died, about 1:15 left: level: b"]


def test_where_it_is_to_be_quiet_it_is(clock: list[float]) -> None:
    out = io.StringIO()
    with Watch(quiet=True, out=out) as watch:
        for event in EVENTS:
            clock[0] += LINE_EVERY_S + 1
            watch.told(event)
    assert out.getvalue() == ""
    assert watch.tally.n_ended == 4


class Terminal:
    """Someone who sits before a terminal."""

    def __init__(self) -> None:
        self.master, slave = os.openpty()
        os.set_blocking(self.master, False)
        self.file = os.fdopen(slave, "w", encoding="utf-8")

    def seen(self) -> str:
        """All that was shown, without what moves the cursor or colours it."""
        data = b""
        try:
            while True:
                data += os.read(self.master, 1 << 16)
        except BlockingIOError:
            return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", data.decode())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    made = Terminal()
    yield made
    made.file.close()
    os.close(made.master)


def shown(terminal: Terminal, *events: Event) -> dict[str, str]:
    """The bars as they stand when all that has happened, by name."""
    with Watch(out=terminal.file) as watch:
        for event in events:
            watch.told(event)
        terminal.seen()
        assert watch._bars is not None
        watch._bars.refresh()
        bars = [line.split(maxsplit=1) for line in terminal.seen().splitlines()]
    return {name: re.sub("[━╸╺ ]+", " ", rest).strip() for name, rest in (bar for bar in bars if len(bar) == 2)}


def test_on_a_terminal_a_bar_for_all_and_one_per_stage_that_has_begun(terminal: Terminal) -> None:
    assert shown(terminal, *EVENTS[:3]) == {"all": "1/6 50 rows/s, 2 workers", "timeline": "1/2"}


def test_a_bar_tells_what_failed(terminal: Terminal) -> None:
    assert shown(terminal, *EVENTS) == {
        "all": "4/6 40 rows/s, 2 workers, 1 failed, 1 died, about 1:15 left",
        "timeline": "2/2",
        "level": "2/4 1 failed",
    }


def test_the_dashboard_stays_above_the_bars(terminal: Terminal) -> None:
    with Watch(out=terminal.file) as watch:
        for event in (*EVENTS, WORKERS):
            watch.told(event)
    seen = terminal.seen()
    assert seen.count("dashboard: http://127.0.0.1:8787/status") == 1


def test_what_takes_long_before_the_run_is_told_on_a_terminal_only(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    assert teller("reading", "sources", quiet=False) is None, "pytest's standard error is no terminal"
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal.file)
        assert teller("reading", "sources", quiet=True) is None
        told: Any = teller("reading", "sources", quiet=False)
        told(0, 2)
        told(1, 2)
        terminal.file.flush()
    assert terminal.seen() == "reading 1/2 sourcesreading 2/2 sources\n"
