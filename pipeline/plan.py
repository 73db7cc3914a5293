"""The plan: every track's key, what the cache holds of them, and so what is to be computed, each with its reason. Runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from extractors.contract import ExtractorError, Kind, Person
from extractors.weights import PLAIN, describe_missing, find
from pipeline import openface, roots, sound, video
from pipeline.artifact import read_about
from pipeline.cache import Cache, State
from pipeline.code_digest import code_digest
from pipeline.config import Config
from pipeline.errors import Problem, RequestError
from pipeline.graph import Stage, with_dependents, with_needed
from pipeline.keys import KeyMaker, finding, identity, params_part, stage_part
from pipeline.memo import StatMemo
from pipeline.sources import digest_of
from pipeline.trials import Trial


class Reason(StrEnum):
    """Why a track is computed."""

    NEW = "never computed"
    CHANGED = "its stage changed"
    INPUT = "an input is computed again"
    CORRUPT = "its file is damaged"
    FORCED = "forced"
    RETRY = "failed before"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One artifact to compute, for the first trial that needs it. found_in: stage and key of faces artifacts, the best first, in which its
    faces are found already, or will be, so that it only has to choose."""

    stage: Stage
    key: str
    index: int
    trial: Trial
    inputs: tuple[str, ...]
    reason: Reason
    found_in: tuple[tuple[str, str], ...] = ()

    @property
    def person(self) -> Person:
        """Whose face: a stage's parameters may name one for all trials."""
        named: Person | Literal["auto"] = getattr(self.stage.params, "person", "auto")
        return self.trial.person if named == "auto" else named


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """keys[stage][i] is the key of trials[i]. states: what the cache held. tasks: in an order in which they can run."""

    config: Config
    trials: tuple[Trial, ...]
    weights: Mapping[str, Path]
    parts: Mapping[str, Mapping[str, Any]]
    keys: Mapping[str, Sequence[str]]
    pictures: Mapping[str, Sequence[str | None]]
    states: Mapping[str, Mapping[str, State]]
    tasks: tuple[Task, ...]
    blocked: Mapping[str, frozenset[str]]  # per stage the keys that cannot be computed, because an input failed

    def tasks_of(self, stage: str) -> list[Task]:
        return [task for task in self.tasks if task.stage.name == stage]

    def identity(self, stage: Stage, index: int) -> dict[str, Any]:
        """The whole identity of one trial's track."""
        return identity(
            self.parts[stage.name],
            source=self.trials[index].source.digest,
            person=person_part(stage, self.trials[index]),
            pictures=self.pictures[stage.name][index] if stage.root else None,
            inputs=[self.keys[name][index] for name in stage.inputs],
        )


def find_weights(config: Config, folders: Sequence[Path], cache: Cache) -> tuple[dict[str, Path], dict[str, str]]:
    """Per stage its weight file and the file's sha256. Raises RequestError naming every missing or wrong one."""
    paths: dict[str, Path] = {}
    digests: dict[str, str] = {}
    problems: list[Problem] = []
    for stage in config.stages:
        if stage.weights is None:  # it needs none, or fetches them when it runs
            continue
        where = f"{config.path.name}:{stage.line}: stages.{stage.name}.weights"
        try:
            files = getattr(stage.extractor, "layout", PLAIN).files
            path = find(stage.weights, folders, files)
            if path is None:
                why = describe_missing(stage.extractor, stage.weights, folders)
                problems.append(Problem(what="weight file missing", where=where, why=why, fix="or name its folder with --weights DIR"))
                continue
            paths[stage.name], digests[stage.name] = path, digest_of(path, cache.digests, files)
        except (ExtractorError, OSError) as error:
            problems.append(Problem(what="weight file cannot be read", where=where, why=str(error), fix="mend it, then run again"))
            continue
        if stage.sha256 and stage.sha256 != digests[stage.name]:
            why = f"sha256 is {digests[stage.name]}, the stages file says {stage.sha256}"
            problems.append(Problem(what=f"{path} is another file", where=where, why=why, fix="fetch the right one, or mend sha256"))
    if problems:
        raise RequestError(problems)
    return paths, digests


def decoder_part(stage: Stage, memo: StatMemo) -> str | None:
    """Name and version of what decodes for the stage. The sound's stream, start and gaps are found by the video's decoder."""
    if stage.extractor.decoder is None or stage.root is not None:
        return None
    if stage.extractor.decoder == "openface":
        return openface.version(memo)
    pictures = video.decoder_version()
    return pictures if stage.extractor.decoder == "pyav" else f"{sound.decoder_version()}, {pictures}"


def person_part(stage: Stage, trial: Trial) -> str | None:
    """A faces stage follows the trial's person, unless its parameters name one."""
    if stage.yields is not Kind.FACES or stage.root is not None:
        return None
    return trial.person if getattr(stage.params, "person", "auto") == "auto" else None


def _what_is_needed(config: Config, folders: Sequence[Path], cache: Cache) -> tuple[dict[str, Path], dict[str, str], dict[str, str | None]]:
    """Per stage its weight file, that file's sha256, and what decodes for it. Raises RequestError with all that is missing for any."""
    roots_of = [(stage, problem) for stage in config.stages if stage.root and (problem := roots.check(stage, stage.root))]
    problems = [replace(problem, what=f"stages.{stage.name}.root: {problem.what}") for stage, problem in roots_of]
    weights: tuple[dict[str, Path], dict[str, str]] = {}, {}
    decoders: dict[str, str | None] = {}
    try:
        weights = find_weights(config, folders, cache)
    except RequestError as error:
        problems += error.problems
    for stage in config.stages:
        try:
            decoders[stage.name] = decoder_part(stage, cache.digests)
        except RequestError as error:
            problems += error.problems
    if problems:
        raise RequestError(list(dict.fromkeys(problems)))
    return *weights, decoders


def make_plan(
    config: Config,
    trials: Sequence[Trial],
    cache: Cache,
    *,
    weights_folders: Sequence[Path] = (),
    only: Collection[str] = (),
    force: Collection[str] = (),
    retry_failed: bool = False,
) -> Plan:
    """Raises RequestError where a weight file, a root or a program is missing, or a named stage does not exist."""
    for name in (*only, *force):
        config.stage(name)
    weights, digests, decoders = _what_is_needed(config, weights_folders, cache)
    # whatever is computed, the store needs its row axis
    wanted = with_needed(config.stages, (*only, config.timeline.name)) if only else {stage.name for stage in config.stages}
    wanted |= with_dependents(config.stages, force)  # what was computed from a forced stage is not of its new output
    work = _Work(cache=cache, trials=trials, force=frozenset(force), retry_failed=retry_failed, findings=_Findings(cache))
    for stage in config.stages:
        part = stage_part(
            extractor=stage.extractor.name if ":" not in stage.use else stage.use,
            version=stage.extractor.version,
            params=params_part(stage.params),
            precision=stage.precision,
            weights=stage.remote.identity if stage.remote else digests.get(stage.name),
            decoder=decoders[stage.name],
        )
        work.add(stage, part, wanted=stage.name in wanted)
    return Plan(
        config=config,
        trials=tuple(trials),
        weights=weights,
        parts=work.parts,
        keys=work.keys,
        pictures=work.pictures,
        states=work.states,
        tasks=tuple(work.tasks),
        blocked={name: frozenset(keys) for name, keys in work.blocked.items()},
    )


class _Findings:
    """Which faces artifacts tell what was found in a video, so that another choice among it needs no detection."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._known: dict[str, list[tuple[str, str]]] | None = None  # by finding, stage and key of what the cache has
        self._running: dict[str, list[tuple[str, str]]] = {}  # and of what this plan computes, in stages that are done with
        self._of_stage: list[tuple[str, tuple[str, str]]] = []

    def told(self, task: Task, part: Mapping[str, Any], *, again: bool) -> Task:
        """The task, told where its faces were or will be found. again: the cache is not to be believed."""
        choices = getattr(task.stage.extractor, "choices", ())
        if not choices:
            return task
        whole = identity(part, source=task.trial.source.digest, person=None, pictures=None, inputs=task.inputs)
        wanted = finding(whole, choices)
        self._of_stage.append((wanted, (task.stage.name, task.key)))
        cached = [] if again else self._cached(wanted, code_digest(task.stage.use, self.cache.digests))
        return replace(task, found_in=(*cached, *self._running.get(wanted, ())))

    def stage_ends(self) -> None:
        """Tasks of one stage and source run together, so that none waits for another; those of a later stage can make use of them."""
        for wanted, artifact in self._of_stage:
            self._running.setdefault(wanted, []).append(artifact)
        self._of_stage = []

    def _cached(self, wanted: str, code: str) -> list[tuple[str, str]]:
        """The first whole artifact, of whatever stage, that today's code made."""
        if self._known is None:
            self._known = {}
            for stage in self.cache.stages():
                for key, seal in self.cache.seals(stage).values():
                    if seal.get("finding"):
                        self._known.setdefault(seal["finding"], []).append((stage, key))
        usable = (one for one in self._known.get(wanted, []) if self.cache.state(*one) is State.DONE and self._code_of(*one) == code)
        return list(islice(usable, 1))

    def _code_of(self, stage: str, key: str) -> str:
        return str(read_about(self.cache.path(stage, key))["code"])


class _Work:
    """The plan in the making, stage by stage, inputs first."""

    def __init__(self, *, cache: Cache, trials: Sequence[Trial], force: frozenset[str], retry_failed: bool, findings: _Findings) -> None:
        self.cache, self.trials, self.force, self.retry_failed, self.findings = cache, trials, force, retry_failed, findings
        self.parts: dict[str, Mapping[str, Any]] = {}
        self.keys: dict[str, list[str]] = {}
        self.pictures: dict[str, list[str | None]] = {}
        self.states: dict[str, dict[str, State]] = {}
        self.tasks: list[Task] = []
        self.running: dict[str, set[str]] = {}
        self.blocked: dict[str, set[str]] = {}
        self.again: dict[str, set[str]] = {}  # forced, or reading what is forced

    def add(self, stage: Stage, part: Mapping[str, Any], *, wanted: bool) -> None:
        name = stage.name
        self.parts[name] = part
        self.pictures[name] = self._pictures(stage) if stage.root else []
        self.keys[name] = self._keys(stage, part)
        self.states[name], self.running[name], self.blocked[name], self.again[name] = {}, set(), set(), set()
        seen_before: set[tuple[str, str | None]] | None = None
        for index, key in enumerate(self.keys[name]):
            if key in self.states[name]:
                continue
            state = self.states[name][key] = self.cache.state(name, key)
            inputs = [(other, self.keys[other][index]) for other in stage.inputs]
            again = name in self.force or any(input_key in self.again[other] for other, input_key in inputs)
            if (state is State.DONE and not again) or not wanted:
                continue
            if again:
                self.again[name].add(key)
            if any(self._is_lost(other, input_key) for other, input_key in inputs):
                self.blocked[name].add(key)
                continue
            if state is State.FAILED and not self.retry_failed and not again:
                continue
            if seen_before is None:
                seen_before = {(seal["source"], seal["person"]) for _, seal in self.cache.seals(name).values()}
            trial = self.trials[index]
            known = (trial.source.digest, person_part(stage, trial)) in seen_before
            reason = self._reason(name, state, known=known, inputs=inputs)
            self.running[name].add(key)
            task = Task(stage=stage, key=key, index=index, trial=trial, inputs=tuple(key for _, key in inputs), reason=reason)
            self.tasks.append(self.findings.told(task, part, again=again))
        self.findings.stage_ends()

    def _pictures(self, stage: Stage) -> list[str | None]:
        assert stage.root is not None
        return [roots.digest(stage, stage.root, trial, self.cache.digests) for trial in self.trials]

    def _keys(self, stage: Stage, part: Mapping[str, Any]) -> list[str]:
        maker, pictures = KeyMaker(part), self.pictures[stage.name]
        inputs = [self.keys[name] for name in stage.inputs]
        return [
            maker.key(
                source=trial.source.digest,
                person=person_part(stage, trial),
                pictures=pictures[index] if pictures else None,
                inputs=[keys[index] for keys in inputs],
            )
            for index, trial in enumerate(self.trials)
        ]

    def _is_lost(self, stage: str, key: str) -> bool:
        return key in self.blocked[stage] or (self.states[stage][key] is State.FAILED and key not in self.running[stage])

    def _reason(self, stage: str, state: State, *, known: bool, inputs: Sequence[tuple[str, str]]) -> Reason:
        if state is State.CORRUPT:
            return Reason.CORRUPT
        if state is State.FAILED:
            return Reason.RETRY
        if state is State.DONE:
            return Reason.FORCED if stage in self.force else Reason.INPUT
        if not known:
            return Reason.NEW
        return Reason.INPUT if any(key in self.running[other] for other, key in inputs) else Reason.CHANGED
