"""What is being waited for: a bar on a terminal, a line now and then elsewhere. Always on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from pipeline.worker import Job, Report

LINE_EVERY_S = 10.0


class Watch:
    """Listens to a run of n_tasks artifacts."""

    def __init__(self, n_tasks: int, *, quiet: bool = False, out: TextIO | None = None) -> None:
        self.n_tasks, self.quiet, self.out = n_tasks, quiet, out or sys.stderr
        self.n_done, self.n_failed = 0, 0
        self._bar: Progress | None = None
        self._last_line_s = time.monotonic()

    def __enter__(self) -> Watch:
        if not self.quiet and self.out.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(file=self.out), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self.n_tasks)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def started(self, job: Job) -> None:
        text = f"{job.stage}: {', '.join(item.trial for item in job.items)} ({job.reason})"
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif not self.quiet and time.monotonic() - self._last_line_s > LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            print(f"{self.n_done}/{self.n_tasks} {text}", file=self.out, flush=True)

    def finished(self, job: Job, report: Report) -> None:
        self.n_done += len(report.outcomes)
        self.n_failed += sum(outcome.problem is not None for outcome in report.outcomes)
        if self._bar is not None:
            self._bar.update(self._task, completed=self.n_done)


def teller(doing: str, what: str, *, quiet: bool) -> Callable[[int, int], None] | None:
    """Tells on a terminal's standard error how far it is, called with how many are done and how many there are; elsewhere None."""
    if quiet or not sys.stderr.isatty():
        return None

    def told(done: int, of_all: int) -> None:
        click.echo(f"\r{doing} {done + 1}/{of_all} {what}" + ("\n" if done + 1 == of_all else ""), nl=False, err=True)

    return told
