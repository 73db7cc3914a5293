"""`affectpipe weights` and `affectpipe weights check`: their options and what they print."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import click

FITS, DOES_NOT_FIT = 0, 1
FOLDER = click.Path(path_type=Path, file_okay=True)


@click.group(invoke_without_command=True)
@click.option("--stages", type=FOLDER, default="stages.yaml", show_default=True, help="The stages file, beside which weights/ is searched.")
@click.option("--cache", type=FOLDER, default="cache", show_default=True, help="The cache, of which weights/ is searched.")
@click.option("--weights", "folders", type=FOLDER, multiple=True, help="A folder of weight files. May be repeated.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
@click.pass_context
def weights(ctx: click.Context, stages: Path, cache: Path, folders: tuple[Path, ...], json_: bool) -> None:
    """The published checkpoints: for which extractor, from where, under which terms, and which are here. Fetches nothing."""
    if ctx.invoked_subcommand is not None:
        return
    from pipeline.cache import Cache
    from pipeline.checkpoints import catalogue
    from pipeline.request import weights_folders
    from pipeline.show import as_json, table

    memory, searched = Cache(cache).digests, weights_folders(folders, stages, cache)
    rows = catalogue(searched, memory)
    if cache.is_dir():
        memory.save()
    if json_:
        as_json({"searched": searched, "checkpoints": rows})
        return
    table([row | {"state": row["state"].partition(":")[0], "sha256": row["sha256_prefix"]} for row in rows], _COLUMNS)
    click.echo("\nsearched: " + ", ".join(map(str, searched)))


_COLUMNS = ("extractor", "file", "state", "sha256", "licence", "origin")


@weights.command()
@click.argument("file", type=FOLDER)
@click.option("--for", "use", required=True, metavar="EXTRACTOR", help="As 'use' in a stages file.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the extractor. May be repeated.")
@click.option("--json", "json_", is_flag=True, help="Print JSON.")
def check(file: Path, use: str, settings: tuple[str, ...], json_: bool) -> None:
    """Does FILE, a weight file or a saved model's folder, fit an extractor, and if not, which would it fit? Exit status 0 or 1."""
    from pipeline import checkpoints
    from pipeline.show import as_json

    checked = checkpoints.check(file, use, settings)
    if json_:
        others = [{"extractor": name, "params": params} for name, params in checked.others]
        found = dataclasses.asdict(checked.fit) if checked.fit else {}
        as_json({"file": file, "extractor": use, "fits": not checked.why, "why": checked.why, "layout": found, "others": others})
    else:
        _show(file, use, checked)
    sys.exit(DOES_NOT_FIT if checked.why else FITS)


def _show(file: Path, use: str, checked: Any) -> None:
    from pipeline.checkpoints import layout_of, listed

    click.echo(f"{file}: {'does not fit' if checked.why else 'fits'} {use}")
    fit = checked.fit
    for line in layout_of(fit) if fit else []:
        click.echo(f"  {line}")
    if fit and fit.why and not fit.refused:
        for names, what in ((fit.missing, "missing"), (fit.unexpected, "unexpected"), (fit.unlike, "of another shape")):
            if names:
                click.echo(f"  {len(names)} {what} ({fit.network} has {fit.n_own}): {listed(names)}")
    elif checked.why:
        click.echo(f"  {checked.why}")
    for name, params in checked.others:
        settings = "".join(f" --set {key}={value}" for key, value in params.items())
        click.echo(f"it fits: --for {name}{settings}")
    if checked.why and not checked.others and file.is_file():
        click.echo("it fits no other extractor of the registry")
