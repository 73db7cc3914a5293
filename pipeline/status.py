"""`plan` and `status`: what would run and why, what there is, and how a run goes. Nothing is run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from pipeline.artifact import read_about
from pipeline.cache import Cache, State
from pipeline.code_digest import code_digest
from pipeline.graph import Stage
from pipeline.plan import Plan
from pipeline.progress import Watch
from pipeline.record import follow, newest


def plan_summary(plan: Plan, cache: Cache) -> dict[str, Any]:
    """Per stage how many artifacts are cached, to be computed (by reason), failed before or blocked, and an estimate in seconds."""
    stages = [_planned(plan, cache, stage) for stage in plan.config.stages]
    known = [entry["estimate_s"] for entry in stages if entry["run"]]
    return {
        "trials": len(plan.trials),
        "sources": len({trial.source.digest for trial in plan.trials}),
        "stages": stages,
        "run": sum(entry["run"] for entry in stages),
        "estimate_s": sum(known) if known and None not in known else None if known else 0.0,
    }


def _planned(plan: Plan, cache: Cache, stage: Stage) -> dict[str, Any]:
    tasks = plan.tasks_of(stage.name)
    states = plan.states[stage.name]
    running = {task.key for task in tasks}
    # from what earlier artifacts of the stage cost on this cache, on average; those that were only chosen among faces by themselves
    costs: dict[bool, list[float]] = {True: [], False: []}
    for _, seal in cache.seals(stage.name).values():
        costs[bool(seal.get("found_in"))].append(seal["seconds"])
    means = {chosen: sum(some) / len(some) if some else None for chosen, some in costs.items()}
    estimates = [means[bool(task.found_in)] or means[False] for task in tasks]
    return {
        "stage": stage.name,
        "extractor": stage.use,
        "cached": sum(state is State.DONE and key not in running for key, state in states.items()),
        "run": len(tasks),
        "reasons": dict(Counter(task.reason.value + (", its faces are known" if task.found_in else "") for task in tasks)),
        "failed": sum(state is State.FAILED and key not in running for key, state in states.items()),
        "blocked": len(plan.blocked[stage.name]),
        "estimate_s": None if None in estimates else sum(filter(None, estimates)),
    }


def status(plan: Plan, cache: Cache) -> dict[str, Any]:
    """Per stage: done, missing, failed, bytes, licence; and the stages whose code changed since their oldest artifact was made."""
    rows = []
    for stage in plan.config.stages:
        states = plan.states[stage.name]
        done = [key for key, state in states.items() if state is State.DONE]
        files = {key: cache.path(stage.name, key).stat() for key in done}
        counts = Counter(states.values())
        rows.append(
            {
                "stage": stage.name,
                "extractor": stage.use,
                "done": len(done),
                "missing": counts[State.MISSING] + counts[State.CORRUPT],
                "failed": counts[State.FAILED],
                "bytes": sum(stat.st_size for stat in files.values()),
                "licence": stage.extractor.licence,
                "code_changed": bool(done) and _code_changed(cache, stage, min(done, key=lambda key: files[key].st_mtime_ns)),
            }
        )
    return {"trials": len(plan.trials), "stages": rows, "licences": sorted({row["licence"] for row in rows})}


def _code_changed(cache: Cache, stage: Stage, oldest: str) -> bool:
    return bool(read_about(cache.path(stage.name, oldest))["code"] != code_digest(stage.use, cache.digests))


def watch(cache: Path, *, quiet: bool) -> None:
    """Show how the newest run on the cache goes, until it ends; quiet: only wait. Raises RequestError where there was none."""
    with Watch(quiet=quiet) as view:
        for tally in follow(newest(cache)):
            view.show(tally)
    if not quiet:
        click.echo(f"the run ended ({tally.ended}): {tally.in_words()}", err=True)
