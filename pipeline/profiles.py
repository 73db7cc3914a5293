"""Profiles: what a job asks of a SLURM cluster, as the user wrote it in clusters.yaml."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.document import Document
from pipeline.document import load as load_document
from pipeline.errors import Problem, RequestError
from pipeline.params import typed

FILE_NAME = "clusters.yaml"
SECTIONS = ("version", "slurm")
REQUIRED = {"walltime": '"08:00:00"', "memory": "16GB", "cores": "4"}  # with examples: clusters' own defaults are of no use here
MINIMAL = """\
version: 1
slurm:
  gpu: {queue: gpu, gpus: 1, cores: 8, memory: 32GB, walltime: "08:00:00"}"""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
WALLTIME = re.compile(r"(?:(?P<days>\d{1,5})-)?(?P<hours>\d{1,5})(?::(?P<minutes>[0-5]?\d)(?::(?P<seconds>[0-5]?\d))?)?", re.ASCII)
MEMORY = re.compile(r"(?P<number>\d{1,12}(?:\.\d{1,3})?) ?(?P<unit>[KMGT])(?:i?B)?", re.IGNORECASE | re.ASCII)
WORD = re.compile(r"[\w@][\w.,:@/+-]*", re.ASCII)  # of queues, accounts, interfaces
GRES = re.compile(r"\w[\w.-]*(?::[\w.-]+){0,2}(?:,\w[\w.-]*(?::[\w.-]+){0,2})*", re.ASCII)
POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}
UNQUOTABLE = set('"`\\\n\r')  # what a shell reads even between double quotes; $HOME and the like are wanted
# Directives that a key of their own stands for: given twice, our own reckoning (of when a job must stop, say) would be wrong.
OWN_KEYS = {
    **dict.fromkeys(("-t", "--time"), "walltime"),
    **dict.fromkeys(("-c", "--cpus-per-task"), "cores"),
    **dict.fromkeys(("--mem", "--mem-per-cpu", "--mem-per-gpu"), "memory"),
    **dict.fromkeys(("-p", "--partition"), "queue"),
    **dict.fromkeys(("-A", "--account"), "account"),
    **dict.fromkeys(("--gres", "-G", "--gpus", "--gpus-per-node", "--gpus-per-task"), "gpus or gres"),
}
# A worker is one process, which the pipeline starts, names, logs and ends.
NOT_OURS = ("-n", "--ntasks", "-N", "--nodes", "-a", "--array", "-o", "--output", "-e", "--error", "--requeue", "--no-requeue", "--signal")
Fault = tuple[str, str, str]  # the key, what is wrong with its value, what to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of job. Empty text: not given. cores, memory and gpus are of one job, which is one worker process.

    The client_ keys are of the job that `affectpipe submit` makes, which hands out work to the others; client_directives: None for
    the same as `directives`.
    """

    name: str
    walltime: str
    memory: str
    cores: int
    queue: str = ""
    account: str = ""
    gpus: int = 0
    gres: str = ""
    max_jobs: int = 4
    min_jobs: int = 0
    setup: tuple[str, ...] = ()
    directives: tuple[str, ...] = ()
    interface: str = ""
    python: str = ""
    local_directory: str = ""
    cpu_profile: str = ""
    client_queue: str = ""
    client_cores: int = 1
    client_memory: str = "4GB"
    client_walltime: str = ""
    client_directives: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for key, what, _ in _faults(dataclasses.asdict(self)):
            raise ValueError(f"{key}: {what}")

    @property
    def walltime_s(self) -> int:
        return walltime_s(self.walltime)

    @property
    def client_walltime_s(self) -> int:
        return walltime_s(self.client_walltime or self.walltime)

    @property
    def memory_bytes(self) -> int:
        return memory_bytes(self.memory)

    @property
    def client_memory_bytes(self) -> int:
        return memory_bytes(self.client_memory)

    @property
    def has_gpu(self) -> bool:
        return bool(self.gpus or _gpus_in(self.gres))

    @property
    def generic_resources(self) -> str:
        """SLURM's words for the GPU, and what else the user's have; empty for none."""
        return self.gres or (f"gpu:{self.gpus}" if self.gpus else "")


def walltime_s(text: str) -> int:
    """Seconds of hours:minutes:seconds or days-hours[:minutes[:seconds]]. Raises ValueError for anything else.

    SLURM itself takes a bare number for minutes and a pair for minutes and seconds; both are read wrongly too often to be taken here.
    """
    found = WALLTIME.fullmatch(text)
    if found is None or (found["days"] is None and found["seconds"] is None):
        raise ValueError("not hours:minutes:seconds or days-hours:minutes:seconds")
    days, hours, minutes, seconds = (int(found[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if total < 60:
        raise ValueError("less than a minute, the least that SLURM knows")
    return total


def memory_bytes(text: str) -> int:
    """Bytes. Units are SLURM's: 1G, 1GB and 1GiB are 1024**3. Raises ValueError where it is no number with a unit."""
    found = MEMORY.fullmatch(text)
    if found is None or not float(found["number"]):
        raise ValueError("not a number with a unit")
    return int(float(found["number"]) * 1024 ** POWERS[found["unit"].upper()])


def clusters_file(stages: Path) -> Path:
    """The clusters.yaml that is there: beside the stages file, in the current folder or in ~/.config/affectpipe.

    Where none is, the first of these places, where one can be written.
    """
    places = (stages.parent / FILE_NAME, Path(FILE_NAME), Path.home() / ".config" / "affectpipe" / FILE_NAME)
    return next((path for path in places if path.exists()), places[0])


def find_profile(path: Path, name: str | None) -> Profile:
    """The named profile of a clusters.yaml, its first where no name is given. Raises RequestError."""
    if not path.exists():
        why = f"it is looked for beside the stages file, in the current folder and in ~/.config/affectpipe, as {FILE_NAME}"
        raise RequestError(Problem(what="no cluster is described", where=str(path), why=why, fix=f"write there, for yours:\n{MINIMAL}"))
    profiles = load_profiles(path)
    if name is None:
        return next(iter(profiles.values()))
    if name not in profiles:
        near = get_close_matches(name, profiles, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"profiles: {', '.join(profiles)}"
        raise RequestError(Problem(what=f"no profile {name!r}", where=str(path), why="", fix=fix))
    return profiles[name]


def find_profiles(path: Path, name: str | None) -> tuple[Profile, Profile | None]:
    """As `find_profile`, and the profile that it names for work without a network."""
    found = find_profile(path, name)
    return found, find_profile(path, found.cpu_profile) if found.cpu_profile else None


def load_profiles(path: Path) -> dict[str, Profile]:
    """All profiles of a clusters.yaml, in its order; at least one. Raises RequestError listing every problem."""
    document = load_document(path, noun="clusters file", option="--clusters")
    profiles = _read(document)
    if document.problems:
        raise RequestError(sorted(document.problems, key=lambda problem: int(problem.where.rpartition(":")[2])))
    return profiles


def _read(document: Document) -> dict[str, Profile]:
    data = document.data
    if not isinstance(data, dict):
        document.report((), "a clusters file is a mapping", f"write:\n{MINIMAL}")
        return {}
    for key in data:
        if key not in SECTIONS:
            document.report_unknown((key,), key, list(SECTIONS))
    if data.get("version") != 1 or isinstance(data.get("version"), bool):
        document.report(("version",), f"must be 1, got {data.get('version')!r}", "write 'version: 1'")
    nodes = data.get("slurm")
    if not isinstance(nodes, dict) or not nodes:
        document.report(("slurm",), "must map names to profiles", f"write:\n{MINIMAL}")
        return {}
    read = {name: _profile(document, name, node) for name, node in nodes.items()}
    for name, node in nodes.items():
        _check_cpu_profile(document, name, node, nodes)
    return {name: profile for name, profile in read.items() if profile is not None}


def _profile(document: Document, name: str, node: Any) -> Profile | None:
    """The profile, or None after reporting all that is wrong with it."""
    place, before = ("slurm", name), len(document.problems)
    if not NAME.fullmatch(name):
        document.report(place, "not a profile's name", "use letters, digits, _ and -")
    if not isinstance(node, dict):
        document.report(place, "must be a mapping", f"write 'walltime: {REQUIRED['walltime']}' below it")
        return None
    hints = typing.get_type_hints(Profile)
    del hints["name"]
    values: dict[str, Any] = {}
    for key, value in node.items():
        if (*place, key) in document.unread:
            continue
        if key not in hints:
            document.report_unknown((*place, key), key, list(hints))
        elif key.endswith("walltime") and type(value) is int:
            # YAML takes 12:00:00 for a number to the base of sixty, but 08:00:00 for text.
            document.report((*place, key), f"must be text, got the number {value}", f"write it in quotes: {REQUIRED['walltime']}")
        else:
            problems = len(document.problems)
            read = typed(document, (*place, key), hints[key], value)
            if len(document.problems) == problems:
                values[key] = read
    for key, example in REQUIRED.items():
        if key not in node:
            document.report(place, f"needs '{key}'", f"write '{key}: {example}', for one job")
    for key, what, fix in _faults(values):
        document.report((*place, key), what, fix)
    return Profile(name=name, **values) if len(document.problems) == before else None


def _check_cpu_profile(document: Document, name: str, node: Any, nodes: Mapping[str, Any]) -> None:
    other = node.get("cpu_profile") if isinstance(node, dict) else None
    if not isinstance(other, str) or not other:
        return
    place = ("slurm", name, "cpu_profile")
    found = nodes.get(other)
    if other == name:
        document.report(place, "is the profile itself", "name another one, or remove it")
    elif other not in nodes:
        document.report_unknown(place, other, list(nodes), noun="profile")
    elif isinstance(found, dict) and found.get("cpu_profile"):
        document.report(place, f"{other!r} has a cpu_profile of its own", f"remove it from {other!r}")
    elif isinstance(found, dict) and (found.get("gpus") or _gpus_in(found.get("gres"))):
        document.report(place, f"{other!r} asks for a GPU", "name a profile without one")


def _faults(values: Mapping[str, Any]) -> Iterator[Fault]:
    """All that is wrong with values of the right types, of which some may be missing."""
    for key in ("walltime", "client_walltime", "memory", "client_memory"):
        if key in values and (values[key] or key != "client_walltime"):
            yield from _unit_fault(key, values[key])
    for key, least in (("cores", 1), ("client_cores", 1), ("gpus", 0), ("max_jobs", 1), ("min_jobs", 0)):
        if (value := values.get(key, least)) < least:
            yield key, f"must not be below {least}, got {value}", f"give {least} or more"
    if values.get("min_jobs", 0) > values.get("max_jobs", 4):
        yield "min_jobs", f"is above max_jobs, {values.get('max_jobs', 4)}", "give less, or a higher max_jobs"
    for key in ("queue", "account", "interface", "client_queue"):
        if (value := values.get(key, "")) and not WORD.fullmatch(value):
            yield key, f"not one word: {value!r}", "give the name that the cluster knows"
    for key in ("python", "local_directory"):
        if UNQUOTABLE & set(values.get(key, "")):
            yield key, 'holds a ", a `, a backslash or a new line', "give a plain path"
    for key in ("setup", "directives", "client_directives"):
        if any("\n" in line or "\r" in line for line in values.get(key) or ()):
            yield key, "an entry has several lines", "make each line an entry"
    yield from _gpu_faults(values.get("gpus", 0), values.get("gres", ""))
    for key in ("directives", "client_directives"):
        for line in values.get(key) or ():
            yield from _directive_faults(key, line)


def _unit_fault(key: str, value: str) -> Iterator[Fault]:
    """Of a time or a memory."""
    try:
        walltime_s(value) if key.endswith("walltime") else memory_bytes(value)
    except ValueError as error:
        fix = 'write hours, minutes and seconds, as in "08:00:00", or "1-12:00:00"' if key.endswith("walltime") else "write it as in 32GB"
        yield key, f"{error}: {value!r}", fix


def _gpu_faults(gpus: int, gres: str) -> Iterator[Fault]:
    fix = "one process works on one GPU: ask for one here, and for more jobs with max_jobs"
    if gpus > 1:
        yield "gpus", f"a job has at most one GPU, got {gpus}", fix
    if gres and not GRES.fullmatch(gres):
        yield "gres", f"not what SLURM's --gres takes: {gres!r}", 'write it as in "gpu:a100:1"'
    elif _gpus_in(gres) > 1:
        yield "gres", f"a job has at most one GPU, got {gres!r}", fix
    if gres and gpus:
        yield "gres", "stands instead of gpus, and both are given", "remove one"


def _directive_faults(key: str, line: str) -> Iterator[Fault]:
    option = re.split(r"[ =]", line, maxsplit=1)[0]
    option = option if option.startswith("--") else option[:2]
    if not line.startswith("-"):
        yield key, f"not an option of sbatch: {line!r}", 'write it as in "--constraint=a100"'
    elif option in OWN_KEYS:
        prefix = "client_" if key.startswith("client") and OWN_KEYS[option] in ("walltime", "cores", "memory", "queue") else ""
        yield key, f"{option} has a key of its own", f"write '{prefix}{OWN_KEYS[option]}'"
    elif option in NOT_OURS:
        yield key, f"{option} is set by affectpipe", "remove it"


def _gpus_in(gres: Any) -> int:
    """How many GPUs SLURM's words ask for: gpu, gpu:2, gpu:a100:1, several with commas."""
    count = 0
    for entry in str(gres or "").split(","):
        name, *rest = entry.split(":")
        if name == "gpu":
            count += int(rest[-1]) if rest and rest[-1].isdigit() else 1
    return count
