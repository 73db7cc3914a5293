"""`why`: the parts of one track's key, and which of them differ from the nearest cached one, followed down through its inputs."""

from __future__ import annotations

from typing import Any

from pipeline.artifact import read_about
from pipeline.cache import Cache, State
from pipeline.errors import Problem, RequestError
from pipeline.hdf5 import CorruptFileError
from pipeline.keys import differences
from pipeline.plan import Plan


def why(plan: Plan, cache: Cache, trial: str, stage: str) -> dict[str, Any]:
    """key, state, reason, parts (the whole identity) and changed: {part: {now, before}} against the nearest artifact of the stage.

    Raises RequestError for a trial or stage that is not there.
    """
    node = plan.config.stage(stage)
    names = [entry.name for entry in plan.trials]
    if trial not in names:
        from difflib import get_close_matches

        near = get_close_matches(trial, names, n=1)
        fix = f"did you mean {near[0]!r}?" if near else "see `affectpipe status`"
        raise RequestError(Problem(what=f"no trial {trial!r}", where="TRIAL", why=f"there are {len(names)} others", fix=fix))
    index = names.index(trial)
    key = plan.keys[stage][index]
    reason = next((task.reason.value for task in plan.tasks if task.stage.name == stage and task.key == key), None)
    state = plan.states[stage][key]
    found: dict[str, Any] = {"trial": trial, "stage": stage, "key": key, "state": state.value, "reason": reason}
    if state is State.FAILED:
        found["failure"] = str(cache.failure(stage, key))
    found["parts"] = plan.identity(node, index)
    found["nearest"], found["changed"] = (None, {}) if state is State.DONE else _changed(plan, cache, stage, index)
    return found


def _changed(plan: Plan, cache: Cache, stage: str, index: int) -> tuple[str | None, dict[str, Any]]:
    """The nearest artifact's key and the differing parts; a differing input is followed into the stage that it is."""
    node = plan.config.stage(stage)
    new = plan.identity(node, index)
    near = _nearest(cache, stage, new)
    if near is None:
        return None, {}
    key, old = near
    changed: dict[str, Any] = {}
    for part, (now, before) in differences(new, old).items():
        if part != "inputs":
            changed[part] = {"now": now, "before": before}
            continue
        for name, now_key, old_key in zip(node.inputs, now, before, strict=False):
            if now_key != old_key:
                deeper = _input_changed(plan, cache, name, index, old_key)
                changed |= {f"{name}.{inner}": values for inner, values in deeper.items()} or {name: {"now": now_key, "before": old_key}}
    return key, changed


def _input_changed(plan: Plan, cache: Cache, stage: str, index: int, old_key: str) -> dict[str, Any]:
    new = plan.identity(plan.config.stage(stage), index)
    old = _identity(cache, stage, old_key)
    if old is None:
        return {}
    found = {part: {"now": now, "before": before} for part, (now, before) in differences(new, old).items() if part != "inputs"}
    return found or _changed(plan, cache, stage, index)[1]


def _nearest(cache: Cache, stage: str, new: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Of this source's (or else of all) artifacts of the stage, the one with the fewest differing parts."""
    remembered = {key: seal["source"] for key, seal in cache.seals(stage).values()}
    keys = [key for _, key, _ in cache.artifacts(stage)]
    same = [key for key in keys if remembered.get(key) == new["source"]]
    found = [(key, old) for key in same or keys if (old := _identity(cache, stage, key)) is not None]
    return min(found, key=lambda entry: len(differences(new, entry[1])), default=None)


def _identity(cache: Cache, stage: str, key: str) -> dict[str, Any] | None:
    try:
        identity: dict[str, Any] = read_about(cache.path(stage, key))["identity"]
    except (FileNotFoundError, CorruptFileError):
        return None
    return identity
