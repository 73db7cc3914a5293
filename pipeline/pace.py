"""How long a stage takes per row of a trial's timeline, as learned from the cache and from the run itself."""

from __future__ import annotations

from pipeline.cache import Cache

BYTES_PER_ROW = 4096  # of a video whose timeline is not known yet, until it is


class Pace:
    """Seconds per row of each stage, and rows of each source."""

    def __init__(self, cache: Cache, timeline: str) -> None:
        self._rows: dict[str, int] = {}  # by the source's digest
        self._spent: dict[str, tuple[float, int, int]] = {}  # by stage, seconds, rows and jobs
        for _, seal in cache.seals(timeline).values():
            self.learn_rows(seal["source"], seal.get("n_rows", 0))
        for stage in cache.stages():
            for _, seal in cache.seals(stage).values():
                if seal["source"] in self._rows:
                    self.learn(stage, seal["seconds"], self._rows[seal["source"]])

    def learn_rows(self, digest: str, n_rows: int) -> None:
        if n_rows:
            self._rows[digest] = n_rows

    def learn(self, stage: str, seconds: float, n_rows: int) -> None:
        before = self._spent.get(stage, (0.0, 0, 0))
        self._spent[stage] = before[0] + seconds, before[1] + n_rows, before[2] + 1

    def n_rows(self, digest: str, n_bytes: int) -> int:
        return self._rows.get(digest) or 1 + n_bytes // BYTES_PER_ROW

    def seconds(self, stage: str, n_rows: int) -> float | None:
        """What n_rows of the stage will take; None as long as it is not known."""
        seconds, n_seen, _ = self._spent.get(stage, (0.0, 0, 0))
        return seconds / n_seen * n_rows if n_seen else None

    def mean_s(self, stage: str, n_jobs: int) -> float | None:
        """What n_jobs of the stage will take if they are like those before."""
        seconds, _, n_seen = self._spent.get(stage, (0.0, 0, 0))
        return seconds / n_seen * n_jobs if n_seen else None
