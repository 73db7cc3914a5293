"""Where the work is done: the words after `--on`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import Problem, RequestError

ADDRESS = re.compile(r"(tcp|tls)://[^\s/:]+:\d{1,5}|(tcp|tls)://\[[0-9a-fA-F:]+\]:\d{1,5}")
KNOWN = "inline, local, local:N, slurm, slurm:PROFILE, tcp://HOST:PORT"
MOST_WORKERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """n_workers: of a local one, None for as many as the machine bears; profile: of slurm, None for the first; address: of a scheduler."""

    kind: Literal["inline", "local", "slurm", "address"]
    n_workers: int | None = None
    profile: str | None = None
    address: str = ""

    def __str__(self) -> str:
        told = self.n_workers or self.profile
        return self.address or (f"{self.kind}:{told}" if told else self.kind)


INLINE = Place(kind="inline")


def read_place(text: str) -> Place:
    """Raises RequestError where it is none."""
    kind, colon, rest = text.partition(":")
    if ADDRESS.fullmatch(text):
        return Place(kind="address", address=text)
    if text in ("inline", "local", "slurm"):
        return Place(kind=text)  # type: ignore[arg-type]  # mypy does not see that it is one of them
    if kind == "local" and rest.isascii() and rest.isdecimal() and 1 <= int(rest) <= MOST_WORKERS:
        return Place(kind="local", n_workers=int(rest))
    if kind == "slurm" and rest:
        return Place(kind="slurm", profile=rest)
    why = f"a number of workers from 1 to {MOST_WORKERS} comes after 'local:'" if kind == "local" and colon else ""
    raise RequestError(Problem(what=f"cannot work on {text!r}", where="--on", why=why, fix=f"known: {KNOWN}"))
