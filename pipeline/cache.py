"""The cache: where an artifact of a key is, whether it is whole, and which keys are known to fail."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

from pipeline.artifact import about_of
from pipeline.errors import Problem, read_problem
from pipeline.hdf5 import CorruptFileError, guarded_file, is_whole
from pipeline.memo import FileState, StatMemo, state_of
from pipeline.publish import publish_text, sweep


class State(StrEnum):
    DONE = "done"
    MISSING = "missing"
    CORRUPT = "corrupt"
    FAILED = "failed"


class Seal(TypedDict):
    """What is remembered of a whole artifact: its data's digest, warnings, what it was made of, for whom, and what that cost.

    finding: of faces that can be chosen from again, see `keys.finding`; else empty. found_in: the key of those it was chosen from.
    n_rows: of the track; older memories lack it.
    """

    data: str
    warnings: list[str]
    source: str
    person: str | None
    trial: str
    seconds: float
    finding: str
    found_in: str
    n_rows: int


def read_seal(path: Path, key: str) -> tuple[FileState, Seal] | None:
    """The state of the file and what is to be remembered of it; None where the artifact is not whole, or not of this key."""
    state = state_of(path)
    try:
        if not is_whole(path):
            return None
        with guarded_file(path) as file:
            about, n_rows = about_of(file), len(file["times_s"])
    except (CorruptFileError, KeyError):
        return None
    if about.get("key") != key or "data" not in about:
        return None
    seal = Seal(
        data=about["data"],
        warnings=about["warnings"],
        source=about["source"],
        person=about["identity"]["person"],
        trial=about["trial"],
        seconds=about["seconds"],
        finding=about.get("finding", ""),
        found_in=about.get("found_in", ""),
        n_rows=n_rows,
    )
    return state, seal


class Cache:
    """`root/<stage>/<key[:2]>/<key>.h5`, and beside it `<key>.failed.json` for a failure that would only repeat."""

    def __init__(self, root: Path) -> None:
        self.root, self._root = root, str(root)
        self.digests = StatMemo(root / "digests.json")  # of media and weight files, by path
        self.stores = StatMemo(root / "stores.json")  # what each store file was made from, by path
        self._seals: dict[str, StatMemo] = {}

    def path(self, stage: str, key: str) -> Path:
        return Path(self._file(stage, key))

    def _file(self, stage: str, key: str) -> str:
        # A plan asks hundreds of thousands of times, and making a Path of its parts costs more than asking the file system.
        return f"{self._root}/{stage}/{key[:2]}/{key}.h5"

    def failure_path(self, stage: str, key: str) -> Path:
        return self.root / stage / key[:2] / f"{key}.failed.json"

    def seals(self, stage: str) -> StatMemo:
        """Per key of the stage, what the plan needs to know of an artifact that was found whole: see `seal`."""
        if stage not in self._seals:
            self._seals[stage] = StatMemo(self.root / stage / "seals.json")
        return self._seals[stage]

    def state(self, stage: str, key: str) -> State:
        """A file unchanged since it was last found whole is done; a changed or unknown one is read through to its checksum."""
        try:
            stat = os.stat(self._file(stage, key))
        except FileNotFoundError:
            return State.FAILED if self.failure_path(stage, key).exists() else State.MISSING
        if self.seals(stage).get(key, stat) is not None:
            return State.DONE
        return State.DONE if self.seal(stage, key) else State.CORRUPT

    def seal(self, stage: str, key: str) -> Seal | None:
        """Read the artifact through; remember it where it is whole and of this key, else return None."""
        found = read_seal(self.path(stage, key), key)
        if found is None:
            self.seals(stage).forget(key)
            return None
        self.remember(stage, key, *found)
        return found[1]

    def remember(self, stage: str, key: str, state: FileState, seal: Seal) -> None:
        """What was read from an artifact in this state of its file, by whomever."""
        self.seals(stage).put_state(key, state, seal)

    def known(self, stage: str, key: str) -> Seal:
        """The seal of an artifact that is done. Raises CorruptFileError where it is not."""
        remembered: Seal | None = self.seals(stage).get(key, self.path(stage, key).stat())
        found = remembered or self.seal(stage, key)
        if found is None:
            raise CorruptFileError(f"{self.path(stage, key)}: changed since it was written")
        return found

    def record_failure(self, stage: str, key: str, problem: Problem, trial: str) -> None:
        record = {"trial": trial, "problem": asdict(problem), "failed_utc": datetime.now(UTC).isoformat(timespec="seconds")}
        publish_text(self.failure_path(stage, key), json.dumps(record, indent=1))

    def failure(self, stage: str, key: str) -> Problem:
        """The recorded reason. A record that cannot be read counts as a failure without one."""
        path = self.failure_path(stage, key)
        try:
            return read_problem(json.loads(path.read_text(encoding="utf-8"))["problem"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Problem(what="failed before", where=str(path), why=f"its record cannot be read ({error})", fix="run with --retry-failed")

    def forget_failure(self, stage: str, key: str) -> None:
        self.failure_path(stage, key).unlink(missing_ok=True)

    def stages(self) -> list[str]:
        """The names of all stages of which anything is remembered, whichever stages file they are of."""
        return sorted(path.parent.name for path in self.root.glob("*/seals.json"))

    def artifacts(self, stage: str | None = None) -> Iterator[tuple[str, str, Path]]:
        """(stage, key, path) of every visible artifact."""
        for path in sorted(self.root.glob(f"{stage or '*'}/[0-9a-f][0-9a-f]/*.h5")):
            if not path.name.startswith("."):
                yield path.parent.parent.name, path.stem, path

    def failures(self) -> Iterator[tuple[str, str, Path]]:
        """(stage, key, path) of every recorded failure."""
        for path in sorted(self.root.glob("*/[0-9a-f][0-9a-f]/*.failed.json")):
            if not path.name.startswith("."):
                yield path.parent.parent.name, path.name.partition(".")[0], path

    def save(self) -> None:
        """Publish the memories."""
        self.digests.save()
        self.stores.save()
        for seals in self._seals.values():
            seals.save()

    def sweep(self) -> int:
        """Remove what no process can still have a use for: temporaries, claims, and what told workers of a run to stop."""
        return sweep(self.root)
