"""Expected errors of the trainer, in the form of the pipeline's: what, where, why and how to mend it. Anything else is a defect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

N_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong. `where` names the file (and line), the trial or the column, `fix` what the user can do."""

    what: str
    where: str
    why: str
    fix: str

    def __str__(self) -> str:
        why = f": {self.why}" if self.why else ""
        fix = f"; {self.fix}" if self.fix else ""
        return f"{self.where}: {self.what}{why}{fix}"


class TrainerError(Exception):
    """What was asked for cannot be done with what is there. `problems` lists all that was found, never only the first."""

    def __init__(self, problems: Sequence[Problem] | Problem) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def named(names: Iterable[str]) -> str:
    """`106, 107, 108, 109, 110 and 3 more`: the first few of many, in order of names."""
    ordered = sorted(names)
    more = f" and {len(ordered) - N_NAMED} more" if len(ordered) > N_NAMED else ""
    return ", ".join(ordered[:N_NAMED]) + more
