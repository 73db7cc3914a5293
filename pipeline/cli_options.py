"""What the commands share: their options, the exit statuses, making a request ready."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline.request import Prepared, Request

OK, SOME_FAILED, WRONG_REQUEST, STOPPED, TERMINATED = 0, 1, 2, 130, 143
FOLDER = click.Path(path_type=Path, file_okay=True)


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that all commands about a folder of videos share; the command gets them as one Request."""

    @click.argument("videos", type=FOLDER)
    @click.option("--stages", type=FOLDER, default="stages.yaml", show_default=True, help="The stages file.")
    @click.option("--cache", type=FOLDER, default="cache", show_default=True, help="Where artifacts are kept.")
    @click.option("--store", type=FOLDER, help="The store's folder.  [default: stores/NAME OF VIDEOS]")
    @click.option("--labels", type=FOLDER, help="The folder of label files.")
    @click.option("--task", "tasks", multiple=True, help="Only labels of this task: va, expr, au, mtl, emi, csv. May be repeated.")
    @click.option("--weights", type=FOLDER, multiple=True, help="A folder of weight files. May be repeated.")
    @click.option("--follow-links", is_flag=True, help="Allow links that lead out of VIDEOS.")
    @click.option("--json", "json_", is_flag=True, help="Print JSON.")
    @functools.wraps(command)
    def wrapped(**options: Any) -> None:
        from pipeline.request import Request

        names = ("videos", "stages", "cache", "store", "labels", "tasks", "weights", "follow_links")
        request = Request(**{name: options.pop(name) for name in names})
        _require_folders(cache=request.cache, store=request.store_folder)
        command(request, **options)

    return wrapped


def _require_folders(**places: Path) -> None:
    """What will be written to must be a folder, or something that can become one."""
    from pipeline.errors import Problem, RequestError

    problems = []
    for option, path in places.items():
        first = next(parent for parent in (path, *path.absolute().parents) if os.path.lexists(parent))
        if not first.is_dir():
            why, fix = f"{first} is no folder", f"name a folder with --{option}"
            problems.append(Problem(what=f"cannot be the {option}", where=str(path), why=why, fix=fix))
    if problems:
        raise RequestError(problems)


def choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what is to be computed."""
    for option in reversed(
        (
            click.option("--only", multiple=True, metavar="STAGE", help="Only this stage and what it needs. May be repeated."),
            click.option(
                "--force", multiple=True, metavar="STAGE", help="Compute this stage again even where it is cached. May be repeated."
            ),
            click.option("--retry-failed", is_flag=True, help="Try again what failed before."),
        )
    ):
        command = option(command)
    return command


def prepared_of(request: Request, *, quiet: bool) -> Prepared:
    from pipeline.progress import teller
    from pipeline.request import prepare

    return prepare(request, told=teller("reading", "sources", quiet=quiet))


def tell(prepared: Prepared) -> None:
    for failure in prepared.failures:
        click.echo(f"{failure.problem.severity.value}: {failure.trial}: {failure.problem}", err=True)
