"""`affectpipe run` and `affectpipe submit`: their options and what they print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_options import FOLDER, OK, SOME_FAILED, choosing, common, prepared_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.places import Place
    from pipeline.request import Request
    from pipeline.run import Result

PLACES = "Who does the work: inline, local[:N], slurm[:PROFILE], tcp://HOST:PORT."


def working(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say who computes, and on what."""
    for option in (
        click.option("--clusters", type=FOLDER, help="The clusters file of --on slurm.  [default: clusters.yaml beside the stages file]"),
        click.option("--on", default="inline", show_default=True, metavar="PLACE", help=PLACES),
        click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto takes a GPU where there is one."),
    ):
        command = option(command)
    return command


@click.command()
@common
@choosing
@working
@click.option("--show-script", is_flag=True, help="Print the script of a worker's SLURM job; submit and run nothing.")
def run(request: Request, json_: bool, show_script: bool, **options: Any) -> None:
    """Compute what is missing, then assemble the store."""
    from pipeline.places import read_place
    from pipeline.show import as_json
    from pipeline.stopping import terminable

    place = read_place(options["on"])
    if show_script:
        click.echo(_script(request, place, options["clusters"]), nl=False)
        return
    with terminable():
        result = _run(request, place, quiet=json_, **options)
    as_json(result.as_json()) if json_ else _show_run(result)
    sys.exit(SOME_FAILED if result.has_errors else OK)


def _run(
    request: Request,
    place: Place,
    *,
    only: tuple[str, ...],
    force: tuple[str, ...],
    retry_failed: bool,
    device: str,
    clusters: Path | None,
    on: str,
    quiet: bool,
) -> Result:
    from pipeline.run import run_to_store
    from pipeline.worker import check_device

    check_device(device, here=place.kind in ("inline", "local"))
    prepared = prepared_of(request, quiet=quiet)
    plan = prepared.plan(only=only, force=force, retry_failed=retry_failed)
    return run_to_store(prepared, plan, only=only, device=device, on=place, clusters=clusters, quiet=quiet)


def _script(request: Request, place: Place, clusters: Path | None) -> str:
    from pipeline.errors import Problem, RequestError
    from pipeline.profiles import clusters_file, find_profile
    from pipeline.slurm import job_script

    if place.kind != "slurm":
        raise RequestError(Problem(what="there is no job script", where=f"--on {place}", why="only SLURM has jobs", fix="give --on slurm"))
    profile = find_profile(clusters or clusters_file(request.stages), place.profile)
    return job_script(profile, log_folder=request.cache / "runs")


@click.command()
@common
@choosing
@working
@click.option("--profile", help="Whose cores, memory and GPU the job gets where it does the work itself, with --on local or inline.")
@click.option("--no-requeue", is_flag=True, help="End at the walltime instead of being queued again.")
@click.pass_context
def submit(
    ctx: click.Context,
    /,
    request: Request,
    json_: bool,
    on: str,
    clusters: Path | None,
    profile: str | None,
    no_requeue: bool,
    **_: Any,
) -> None:
    """Make the whole run a SLURM batch job: its client too, which hands the work to other jobs (--on slurm) or does it itself."""
    from pipeline import slurm
    from pipeline.config import load as load_config
    from pipeline.errors import Problem, RequestError
    from pipeline.places import read_place
    from pipeline.profiles import clusters_file, find_profile
    from pipeline.show import as_json
    from pipeline.sources import require_videos
    from pipeline.worker import check_device

    place = read_place(on)
    check_device(str(ctx.params["device"]), here=False)
    require_videos(request.videos)  # what is wrong is better said now
    config = load_config(request.stages)
    for name in (*ctx.params["only"], *ctx.params["force"]):
        config.stage(name)
    if profile and place.kind == "slurm":
        why = f"--on {place} says whose the jobs are, and the client's keys are in that profile"
        raise RequestError(Problem(what="names a second profile", where=f"--profile {profile}", why=why, fix="leave it out"))
    found = find_profile(clusters or clusters_file(request.stages), place.profile or profile)
    argv = [found.python or sys.executable, "-m", "pipeline", "run", *_words(ctx)]
    here = place.kind in ("inline", "local")
    job = slurm.submit(found, argv, here=here, requeue=not no_requeue, log_folder=request.cache / "runs")
    if json_:
        as_json({"job": job.job_id, "log": job.log})
    else:
        click.echo(
            f"submitted job {job.job_id}; it writes to {job.log}\nits progress: affectpipe status VIDEOS --cache {request.cache} --watch"
        )


def _words(ctx: click.Context) -> list[str]:
    """The words of a command line of `run` that say what this one of `submit` says. A job starts in the folder it was submitted from."""
    options: list[str] = []
    arguments: list[str] = []
    for parameter in run.params:
        value = ctx.params.get(str(parameter.name))
        if isinstance(parameter, click.Argument):
            arguments.append(str(value))
        elif value is True:
            options.append(parameter.opts[0])
        elif value:
            options += [word for one in (value if parameter.multiple else (value,)) for word in (parameter.opts[0], str(one))]
    return [*options, "--", *arguments]


def _show_run(result: Any) -> None:
    from pipeline.show import size, table
    from pipeline.story import store_story

    for row in result.failures:
        click.echo(f"{row['severity']}: {row['trial']}: {row['stage']}: {row['what']}: {row['why']}; {row['fix']}", err=True)
    if result.n_computed:
        click.echo(f"computed {result.n_computed} tracks: " + ", ".join(f"{name} {count}" for name, count in result.computed.items()))
    else:
        click.echo("nothing was computed" if result.has_errors else "nothing had to run: every track was in the cache")
    if result.trials:
        story = store_story(result.store)
        table(({"feature": name, **entry} for name, entry in story["features"].items()), _FEATURE_COLUMNS)
        n_bytes = sum((result.store / f"{name}.h5").stat().st_size for name in ("index", *story["features"]))
        changed = ", ".join(result.written) or "nothing"
        click.echo(f"\nstore: {result.store}  ({story['n_trials']} trials, {story['n_rows']} rows, {size(n_bytes)}; written: {changed})")
    if result.failures:
        click.echo(f"failures: {result.failures_path}", err=True)


_FEATURE_COLUMNS = ("feature", "dim", "dtype", "valid_share", "licence")
