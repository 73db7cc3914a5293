"""What is being waited for: a bar on a terminal, a line now and then elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import click

from pipeline.tally import Event, Tally

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_EVERY_S = 10.0


class Watch:
    """Shows a run's tally: on a terminal a bar per stage that has begun and a line about all, elsewhere that line now and then."""

    def __init__(self, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self.quiet, self.out = quiet, out or sys.stderr
        self.tally = Tally()
        self._bars: Progress | None = None
        self._bar_of: dict[str, TaskID] = {}
        self._said_s, self._dashboard = time.monotonic(), ""

    def __enter__(self) -> Watch:
        if not self.quiet and self.out.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[about]}"))
            self._bars = Progress(*columns, console=Console(file=self.out), transient=True)
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def told(self, event: Event) -> None:
        """An event of the run's record."""
        self.tally.add(event)
        self.show(self.tally)

    def show(self, tally: Tally) -> None:
        if tally.dashboard != self._dashboard and not self.quiet:
            self._dashboard = tally.dashboard
            self._say(f"dashboard: {tally.dashboard}")
        if self._bars is not None:
            self._draw(self._bars, tally)
        elif not self.quiet and time.monotonic() - self._said_s > LINE_EVERY_S:
            self._said_s = time.monotonic()
            self._say(tally.in_words() + (f": {tally.last}" if tally.last else ""))

    def _say(self, text: str) -> None:
        print(text, file=self.out, flush=True) if self._bars is None else self._bars.console.print(text)

    def _draw(self, bars: Progress, tally: Tally) -> None:
        everything = bars.tasks[0].id if bars.tasks else bars.add_task("all", total=tally.n_all, about="")
        bars.update(everything, completed=tally.n_ended, total=tally.n_all, about=tally.pace_in_words())
        for name, stage in tally.stages.items():
            if stage.n_ended and name not in self._bar_of:
                self._bar_of[name] = bars.add_task(name, total=stage.n_all, about="")
            if name in self._bar_of:
                failed = f"{stage.n_failed} failed" if stage.n_failed else ""
                bars.update(self._bar_of[name], completed=stage.n_ended, about=failed)


def teller(doing: str, what: str, *, quiet: bool) -> Callable[[int, int], None] | None:
    """Tells on a terminal's standard error how far it is, called with how many are done and how many there are; elsewhere None."""
    if quiet or not sys.stderr.isatty():
        return None

    def told(done: int, of_all: int) -> None:
        click.echo(f"\r{doing} {done + 1}/{of_all} {what}" + ("\n" if done + 1 == of_all else ""), nl=False, err=True)

    return told
