"""`affectpipe run`: its options and what it prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_options import OK, SOME_FAILED, choosing, common, prepared_of

if TYPE_CHECKING:
    from pipeline.request import Request


@click.command()
@common
@choosing
@click.option("--device", default="auto", show_default=True, help="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
@click.option(
    "--on",
    default="inline",
    show_default=True,
    metavar="PLACE",
    help="Who does the work: inline, local[:N], slurm[:PROFILE], tcp://HOST:PORT.",
)
def run(request: Request, json_: bool, only: tuple[str, ...], force: tuple[str, ...], retry_failed: bool, device: str, on: str) -> None:
    """Compute what is missing, then assemble the store."""
    from pipeline.places import read_place
    from pipeline.run import run_to_store
    from pipeline.show import as_json
    from pipeline.stopping import terminable
    from pipeline.worker import check_device

    place = read_place(on)
    check_device(device, here=place.kind in ("inline", "local"))
    with terminable():
        prepared = prepared_of(request, quiet=json_)
        made = prepared.plan(only=only, force=force, retry_failed=retry_failed)
        result = run_to_store(prepared, made, only=only, device=device, on=place, quiet=json_)
    as_json(result.as_json()) if json_ else _show_run(result)
    sys.exit(SOME_FAILED if result.has_errors else OK)


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
