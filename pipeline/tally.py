"""How far a run is, counted from the events of its record: while it goes on, or read back by whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.show import duration

Event = Mapping[str, Any]  # a line of the record, see docs/formats.md


@dataclass(slots=True)
class Stage:
    """Tracks of one stage. n_failed: there will be none, in this run at least."""

    n_all: int
    n_done: int = 0
    n_failed: int = 0

    @property
    def n_ended(self) -> int:
        return self.n_done + self.n_failed


@dataclass(slots=True)
class Tally:
    stages: dict[str, Stage] = field(default_factory=dict)
    began_s: float = 0.0  # seconds since 1970, like all times here
    now_s: float = 0.0
    ended: str = ""  # how, where it has ended
    on: str = ""
    host: str = ""
    pid: int = 0
    dashboard: str = ""
    last: str = ""  # what was reported last
    left_s: float | None = None
    n_rows: int = 0
    n_deaths: int = 0
    n_workers: int = 1

    def add(self, event: Event) -> None:
        self.now_s = event["at_s"]
        if event["event"] == "start":
            self.began_s, self.on, self.host, self.pid = self.now_s, event["on"], event["host"], event["pid"]
            self.stages = {name: Stage(n_all=n_all) for name, n_all in event["to_do"].items()}
        elif event["event"] == "workers":
            self.dashboard, self.n_workers = event["dashboard"], event["n_workers"]
        elif event["event"] == "job":
            self._add_job(event)
        elif event["event"] == "death":
            self.n_deaths += 1
        elif event["event"] == "lost":
            for name, n_tracks in event["tracks"].items():
                self.stages[name].n_failed += n_tracks
        elif event["event"] == "end":
            self.ended = event["how"]

    def _add_job(self, event: Event) -> None:
        self.stages[event["stage"]].n_done += sum(fate in ("done", "found") for fate in event["fates"].values())
        self.n_rows += event["rows"]
        self.left_s = event["left_s"]
        self.last = f"{event['stage']}: {', '.join(event['fates'])}"

    @property
    def n_all(self) -> int:
        return sum(stage.n_all for stage in self.stages.values())

    @property
    def n_ended(self) -> int:
        return sum(stage.n_ended for stage in self.stages.values())

    @property
    def n_failed(self) -> int:
        return sum(stage.n_failed for stage in self.stages.values())

    def pace_in_words(self) -> str:
        """How fast, by how many workers, how long still."""
        seconds = max(self.now_s - self.began_s, 1e-3)
        words = [f"{self.n_rows / seconds:.0f} rows/s", f"{self.n_workers} worker{'s' * (self.n_workers != 1)}"]
        words += [f"{self.n_failed} failed"] if self.n_failed else []
        words += [f"{self.n_deaths} died"] if self.n_deaths else []
        words += [f"about {duration(self.left_s)} left"] if self.left_s is not None and not self.ended else []
        return ", ".join(words)

    def in_words(self) -> str:
        return f"{self.n_ended}/{self.n_all} tracks, {self.pace_in_words()}"
