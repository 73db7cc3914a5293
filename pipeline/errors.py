"""Expected errors: each says what, where, why and how to mend it. Anything else that is raised is a defect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    ERROR = "error"  # this trial, or part of it, could not be done
    WARNING = "warning"  # done, but the user should know


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that went wrong with one trial or file. `where` names the file (and line), `fix` what the user can do."""

    what: str
    where: str
    why: str
    fix: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.where}: {self.what}{why}{fix}"


def read_problem(record: Mapping[str, Any]) -> Problem:
    """What `dataclasses.asdict` made of a Problem, read back. Raises KeyError, TypeError or ValueError where it is none."""
    return Problem(**{**record, "severity": Severity(record["severity"])})


class AffectpipeError(Exception):
    """An expected failure. `problems` lists all that was found, never only the first."""

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[AffectpipeError], tuple[tuple[Problem, ...]]]:
        """As it goes to another process: an exception is made anew of its text otherwise."""
        return type(self), (self.problems,)


class RequestError(AffectpipeError):
    """The request itself is wrong (a bad stages file, a missing folder or weight file): exit status 2, nothing was run."""


class TrialError(AffectpipeError):
    """One trial cannot be done, and trying again would give the same: recorded in the cache, not retried unless asked."""


class PassingError(AffectpipeError):
    """One trial was not done for a reason that may pass (I/O, memory, time): reported, not recorded."""


class TransientError(PassingError):
    """As above, for a reason that may pass at once (a hanging decoder, an I/O error, memory): tried again in the same run."""


class FullError(PassingError):
    """Nothing can be written, and nothing else would fare better: the run ends."""
