"""The command line. Options and printing only: every command's work is a function elsewhere, imported when it is called."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_options import FOLDER, OK, SOME_FAILED, STOPPED, TERMINATED, WRONG_REQUEST, choosing, common, prepared_of, tell
from pipeline.cli_run import run, submit
from pipeline.cli_weights import weights
from pipeline.stopping import TerminatedError

if TYPE_CHECKING:
    from pipeline.request import Prepared, Request


# The trainer's, by name: nothing here knows the trainer, and it is imported when it is asked for.
TRAINER = {name: f"trainer.cli:{name}" for name in ("train", "predict", "evaluate", "compare", "submission")}


class Commands(click.Group):
    """Turns every expected error into its message and its exit status; never a traceback for something a user did."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *TRAINER])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in TRAINER:
            return super().get_command(ctx, cmd_name)
        module, _, name = TRAINER[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        from pipeline.errors import AffectpipeError, PassingError
        from pipeline.hdf5 import CorruptFileError

        try:
            return super().invoke(ctx)
        except AffectpipeError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            ctx.exit(SOME_FAILED if isinstance(error, PassingError) else WRONG_REQUEST)
        except BrokenPipeError:
            raise  # who read our output has gone: click's to handle
        except (CorruptFileError, OSError) as error:
            from pipeline.show import as_line

            click.echo(f"error: {as_line(error)}", err=True)
            ctx.exit(SOME_FAILED)
        except KeyboardInterrupt as error:
            click.echo("stopped; what was computed is kept, and `affectpipe run` continues from there", err=True)
            ctx.exit(TERMINATED if isinstance(error, TerminatedError) else STOPPED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="affectpipe")
def main() -> None:
    """Turns a folder of videos into aligned HDF5 feature stores. Exit status: 0 done, 1 some trials failed, 2 wrong request."""


@main.command()
@click.argument("folder", type=FOLDER)
@click.option("--clips", default=8, show_default=True, help="How many videos.")
@click.option("--seconds", default=6.0, show_default=True, help="The length of each.")
@click.option("--seed", default=0, show_default=True, help="Decides all content.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def sample(folder: Path, clips: int, seconds: float, seed: int, json_: bool) -> None:
    """Write a small labelled data set of real-face clips with known truth into FOLDER."""
    from pipeline.sample import write_sample
    from pipeline.show import as_json

    told = None if json_ else functools.partial(click.echo, err=True)
    made = write_sample(folder, clips=clips, seconds=seconds, seed=seed, progress=told)
    if json_:
        as_json({"videos": made.videos, "labels": made.labels, "truth": made.truth, "trials": made.trials, "n_frames": made.n_frames})
    else:
        click.echo(f"videos: {made.videos}\nlabels: {made.labels}\ntruth:  {made.truth}\n{len(made.trials)} trials, {made.n_frames} frames")


@main.command()
@common
@choosing
def plan(request: Request, json_: bool, only: tuple[str, ...], force: tuple[str, ...], retry_failed: bool) -> None:
    """What would run and why, by stage. Runs nothing."""
    from pipeline.show import as_json, duration, table
    from pipeline.status import plan_summary

    prepared = prepared_of(request, quiet=json_)
    made = prepared.plan(only=only, force=force, retry_failed=retry_failed)
    summary = plan_summary(made, prepared.cache)
    prepared.cache.save()
    if json_:
        as_json(summary | {"problems": [str(failure.problem) for failure in prepared.failures]})
        return
    table([row | {"estimate": duration(row["estimate_s"])} for row in summary["stages"]], _PLAN_COLUMNS)
    click.echo(f"\n{summary['trials']} trials of {summary['sources']} sources, {summary['run']} tracks to compute", nl=False)
    click.echo(f", about {duration(summary['estimate_s'])}" if summary["run"] else ": nothing has to run")
    tell(prepared)


_PLAN_COLUMNS = ("stage", "extractor", "cached", "run", "failed", "blocked", "estimate", "reasons")


@main.command()
@common
@click.option("--watch", is_flag=True, help="How the run that was begun last on this cache goes, by whomever, until it ends.")
def status(request: Request, json_: bool, watch: bool) -> None:
    """Per stage: done, missing, failed, bytes; licences in use; code that changed without a version bump."""
    from pipeline.show import as_json, size, table
    from pipeline.status import status as ask
    from pipeline.status import watch as look_on

    if watch:
        look_on(request.cache, quiet=json_)
    prepared = prepared_of(request, quiet=json_)
    found = ask(prepared.plan(), prepared.cache)
    prepared.cache.save()
    if json_:
        as_json(found)
        return
    table([row | {"size": size(row["bytes"])} for row in found["stages"]], _STATUS_COLUMNS)
    for row in found["stages"]:
        if row["code_changed"]:
            text = f"the code of {row['extractor']} changed, its version did not; raise it, or --force {row['stage']}"
            click.echo(f"warning: {row['stage']}: {text}", err=True)
    click.echo("\nlicences in use: " + "; ".join(found["licences"]))
    tell(prepared)


_STATUS_COLUMNS = ("stage", "extractor", "done", "missing", "failed", "size", "licence")


@main.command()
@common
@click.argument("trial")
@click.argument("stage")
def why(request: Request, json_: bool, trial: str, stage: str) -> None:
    """The parts of the key of TRIAL's STAGE, and which part differs from the nearest cached one."""
    from pipeline.explain import why as ask
    from pipeline.show import as_json

    prepared = prepared_of(request, quiet=json_)
    found = ask(prepared.plan(), prepared.cache, trial, stage)
    prepared.cache.save()
    if json_:
        as_json(found)
        return
    click.echo(f"{trial}, {stage}: {found['state']}" + (f"; it would run: {found['reason']}" if found["reason"] else ""))
    if "failure" in found:
        click.echo(f"failed: {found['failure']}")
    for part, values in found["changed"].items():
        click.echo(f"changed: {part}: {values['before']} -> {values['now']}")
    click.echo(f"key {found['key']} is made of:")
    for part, value in found["parts"].items():
        click.echo(f"  {part}: {value}")


@main.command()
@common
def doctor(request: Request, json_: bool) -> None:
    """Rows against frames, variable rate, missing, short or late audio, weights, ffmpeg, GPU."""
    from pipeline.doctor import examine
    from pipeline.progress import teller
    from pipeline.show import as_json, table

    prepared = prepared_of(request, quiet=json_)
    found = examine(prepared, told=teller("examining", "trials", quiet=json_))
    prepared.cache.save()
    bad = [row for row in found["trials"] if "error" in row] + [entry for entry in found["machine"] if not entry["ok"]]
    if json_:
        as_json(found)
    else:
        for entry in found["machine"]:
            click.echo(f"{'ok ' if entry['ok'] else 'BAD'} {entry['what']}: {entry['is']}")
        click.echo()
        table([row for row in found["trials"] if "error" not in row], _DOCTOR_COLUMNS)
        for row in found["trials"]:
            if "error" in row:
                click.echo(f"error: {row['trial']}: {row['error']}", err=True)
        tell(prepared)
    sys.exit(SOME_FAILED if bad or any(failure.problem.severity.value == "error" for failure in prepared.failures) else OK)


_DOCTOR_COLUMNS = ("trial", "n_frames_decoded", "n_labelled_rows", "mean_hz", "sound_from_s", "sound_to_s", "findings")


@main.command()
@click.argument("file", type=FOLDER)
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def inspect(file: Path, json_: bool) -> None:
    """One file's story: an artifact, a store's file, or a store's folder."""
    from pipeline.show import as_json
    from pipeline.story import inspect as ask

    found = ask(file)
    if json_:
        as_json(found)
        return
    for name, value in found.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for inner, detail in value.items():
                click.echo(f"  {inner}: {detail}")
        else:
            click.echo(f"{name}: {value}")


@main.command()
@click.option("--cache", type=FOLDER, default="cache", show_default=True, help="The cache to check.")
@click.option("--store", "stores", type=FOLDER, multiple=True, help="A store to check. May be repeated.  [default: all of stores/]")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def verify(cache: Path, stores: tuple[Path, ...], json_: bool) -> None:
    """Re-check the checksum of every artifact and store file."""
    from pipeline.cache import Cache
    from pipeline.progress import teller
    from pipeline.show import as_json
    from pipeline.upkeep import verify as check

    folders = stores or tuple(sorted(path for path in Path("stores").glob("*") if path.is_dir()))
    found = check(Cache(cache), folders, told=teller("checking", "files", quiet=json_))
    if json_:
        as_json({"n_files": found.n_files, "damaged": found.damaged})
    else:
        for path in found.damaged:
            click.echo(f"damaged: {path}; `affectpipe run` makes it again where it is needed, `gc --delete` removes it where not", err=True)
        click.echo(f"{found.n_files} files checked, {len(found.damaged)} damaged")
    sys.exit(SOME_FAILED if found.damaged else OK)


@main.command()
@common
@click.option("--also-stages", type=FOLDER, multiple=True, help="Another stages file whose artifacts stay. May be repeated.")
@click.option("--delete", is_flag=True, help="Remove them; without it they are only listed.")
def gc(request: Request, json_: bool, also_stages: tuple[Path, ...], delete: bool) -> None:
    """Artifacts that no stages file needs for these videos. A dry run unless --delete is given."""
    import dataclasses

    from pipeline.show import as_json, size
    from pipeline.upkeep import collect, garbage

    prepared = [prepared_of(dataclasses.replace(request, stages=path), quiet=json_) for path in (request.stages, *also_stages)]
    cache = prepared[0].cache
    found = garbage(cache, [entry.for_everyone().plan() for entry in prepared])
    if delete:
        _refuse_with_failures(prepared[0])
        collect(cache, found)
    if json_:
        as_json({"paths": found.paths, "bytes": found.n_bytes, "deleted": delete})
        return
    for path in found.paths:
        click.echo(path)
    click.echo(f"{len(found.paths)} files, {size(found.n_bytes)}: " + ("removed" if delete else "nothing was removed (give --delete)"))


def _refuse_with_failures(prepared: Prepared) -> None:
    """What a source needs cannot be told from one that cannot be read now, so nothing is deleted on its account."""
    from pipeline.errors import RequestError

    problems = [failure.problem for failure in prepared.failures if failure.stage == "source" and failure.problem.severity.value == "error"]
    if problems:
        raise RequestError(problems)


main.add_command(run)
main.add_command(submit)
main.add_command(weights)
