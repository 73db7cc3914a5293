"""The trainer's commands. Options and printing only: every command's work is a function elsewhere, imported when it is called."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli_options import FOLDER, SOME_FAILED, STOPPED, WRONG_REQUEST
from pipeline.show import as_json, table

if TYPE_CHECKING:
    from trainer.metrics import Score
    from trainer.model import Machine
    from trainer.predictions import Predictions
    from trainer.training import Result


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Turns the trainer's expected errors into their messages and exit statuses; the pipeline's are turned by the group."""

    @functools.wraps(function)
    def wrapped(**options: Any) -> None:
        from trainer.errors import TrainerError
        from trainer.samples import ReadError

        try:
            function(**options)
        except ReadError as error:  # the request was right, and then a file was not what it had been
            click.echo(f"error: {error}", err=True)
            sys.exit(SOME_FAILED)
        except TrainerError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(WRONG_REQUEST)
        except (MemoryError, RuntimeError) as error:
            if not _is_full(error):
                raise
            fix = "lower training.batch_size, reading.rows or the numbers below model, then run again"
            click.echo(f"error: there is not enough memory: {str(error).splitlines()[0][:200] if str(error) else error!r}; {fix}", err=True)
            sys.exit(SOME_FAILED)
        except KeyboardInterrupt:
            click.echo("stopped; the same command again goes on after the last epoch that came to its end", err=True)
            sys.exit(STOPPED)

    return wrapped


def _is_full(error: MemoryError | RuntimeError) -> bool:
    """Torch says so in words: `DefaultCPUAllocator: can't allocate memory`, `CUDA out of memory`."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in ("allocate memory", "out of memory"))


def _computing(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--workers", default=0, show_default=True, type=click.IntRange(min=0), help="Processes that read; 0 reads on a thread."
    )(command)
    return click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")(command)


_STORE = click.option("--store", type=FOLDER, required=True, help="The store's folder.")
_JSON = click.option("--json", "json_", is_flag=True, help="Print JSON.")


@click.command()
@click.argument("recipe")
@_STORE
@click.option("--out", type=FOLDER, help="The run's folder; one that is there goes on.  [default: runs/RECIPE]")
@click.option("--folds", help="official, a number of folds, or a file of folds.  [default: what the recipe says]")
@click.option("--subjects", type=FOLDER, help="A csv with the columns trial and subject: who must not be parted.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Overrides the recipe: training.lr=1e-3. May be repeated.")
@click.option("--baselines", is_flag=True, help="Also what predicting the mean gives, and training on labels of other trials.")
@_computing
@_JSON
@_command
def train(recipe: str, store: Path, out: Path | None, folds: str | None, subjects: Path | None, json_: bool, **options: Any) -> None:
    """Train RECIPE, one of ours by its name or a file, on a store; show what it is worth on the trials held out."""
    from pipeline.store import open_store
    from trainer.baselines import Baselines, baselines_of
    from trainer.folds_file import read_folds
    from trainer.groups import read_subjects
    from trainer.model import task_for
    from trainer.recipe import load_recipe
    from trainer.training import as_data, folds_for
    from trainer.training import train as run

    loaded = load_recipe(recipe, options["sets"])
    opened = open_store(store)
    who = read_subjects(subjects) if subjects is not None else None
    task = task_for(opened, loaded.task)
    if folds is None or folds == "official" or folds.isdecimal():
        made = folds_for(loaded, opened, task, folds=folds, subjects=who)
    else:
        made = read_folds(Path(folds), opened.index, subjects=who)
    machine = _machine(options["device"], options["workers"])
    folder = out or Path("runs") / loaded.name
    told = functools.partial(click.echo, err=True)
    result = run(loaded, opened, folder, made, machine=machine, subjects=who, told=told)
    beside: Baselines | None = None
    if options["baselines"]:
        beside = baselines_of(result, opened, machine=machine, subjects=who, told=told)
    if json_:
        as_json({"run": folder, **as_data(result), **({"baselines": beside.as_data()} if beside is not None else {})})
        return
    _show_result(result, beside.scores if beside is not None else {})
    click.echo(f"\nrun: {folder}")


def _show_result(result: Result, beside: Mapping[str, Score]) -> None:
    score = result.pooled.score
    rows = [_score_row(f"fold {one.number}", one.evaluation.score) for one in result.folds if len(result.folds) > 1]
    rows.append(_score_row("all folds, pooled" if len(result.folds) > 1 else "held out", score))
    rows += [_score_row(name, one) for name, one in beside.items()]
    table(rows, ("", score.task.title, *score.targets, "trials"))
    if result.spread is not None:
        click.echo(f"\nmean of folds {result.mean:.4f}, standard deviation {result.spread:.4f}")
    if score.undefined:
        click.echo(f"counted as 0, having no value of their own: {', '.join(score.undefined)}")


def _score_row(name: str, score: Score) -> dict[str, Any]:
    targets = {target: f"{value:.4f}" for target, value in score.targets.items()}
    return {"": name, score.task.title: f"{score.value:.4f}", **targets, "trials": score.n_trials}


@click.command()
@click.argument("run", type=FOLDER)
@_STORE
@click.option("--out", type=FOLDER, help="The file of predictions.  [default: RUN/predicted.h5]")
@click.option("--trial", "trials", multiple=True, help="Only this trial. May be repeated.")
@_computing
@_JSON
@_command
def predict(run: Path, store: Path, out: Path | None, trials: tuple[str, ...], device: str, workers: int, json_: bool) -> None:
    """What RUN's models say of a store's trials: of each, those that have not learnt from it."""
    from pipeline.store import open_store
    from trainer.predicting import predict as say
    from trainer.predictions_file import write_predictions
    from trainer.run_folder import read_run

    told = functools.partial(click.echo, err=True)
    said = say(read_run(run), open_store(store), _machine(device, workers), trials or None, told)
    path = out or run / "predicted.h5"
    write_predictions(path, said.predictions)
    n_rows = int(said.predictions.valid.sum())
    if json_:
        as_json({"predictions": path, "trials": said.predictions.trials, "rows": n_rows, "left_out": said.left_out})
        return
    click.echo(f"{len(said.predictions.trials)} trials, {n_rows} rows: {path}")
    if said.left_out:
        click.echo(f"left out, because all of the run's models have learnt from them: {_some(said.left_out)}")


@click.command()
@click.argument("predictions", type=FOLDER)
@_STORE
@click.option("--trial", "trials", multiple=True, help="Only this trial. May be repeated.")
@_JSON
@_command
def evaluate(predictions: Path, store: Path, trials: tuple[str, ...], json_: bool) -> None:
    """Score PREDICTIONS, a file or a run's folder, against a store's labels."""
    from pipeline.store import open_store
    from trainer.scores import evaluate as score_them
    from trainer.training import score_data

    found = score_them(_predictions(predictions), open_store(store).index, trials=trials or None)
    score = found.score
    if json_:
        about = {"filled": found.filled, "unlabelled": found.unlabelled, "unpredicted": found.unpredicted, "undefined": score.undefined}
        as_json({"task": score.task.name, **score_data(score), "n_valid": dict(score.n_valid), **about})
        return
    rows = [{"target": name, "value": f"{value:.4f}", "rows": score.n_valid.get(name)} for name, value in score.targets.items()]
    table([*rows, {"target": score.task.title, "value": f"{score.value:.4f}"}], ("target", "value", "rows"))
    click.echo(f"\n{score.n_trials} trials; labelled rows without a prediction that took the nearest one's: {found.n_filled}")
    for what, names in (("without a label", found.unlabelled), ("labelled, and not predicted", found.unpredicted)):
        if names:
            click.echo(f"{what}: {_some(names)}")
    if score.undefined:
        click.echo(f"counted as 0, having no value of their own: {', '.join(score.undefined)}")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--store", type=FOLDER, help="The store with the labels.  [default: the first run's]")
@click.option("--draws", default=1000, show_default=True, type=click.IntRange(min=1), help="Of the bootstrap.")
@click.option("--level", default=0.95, show_default=True, type=click.FloatRange(0, 1, min_open=True, max_open=True))
@click.option("--seed", default=0, show_default=True)
@_JSON
@_command
def compare(runs: tuple[Path, ...], store: Path | None, draws: int, level: float, seed: int, json_: bool) -> None:
    """RUNS, folders or files of predictions, beside each other, with confidence intervals by bootstrap over trials."""
    import dataclasses

    from pipeline.store import open_store
    from trainer.compare import compare as beside
    from trainer.run_folder import read_run
    from trainer.scores import evaluate as score_them

    index = open_store(store or read_run(runs[0]).store).index
    scored = {name: score_them(_predictions(path), index).by_trial for name, path in zip(_names(runs), runs, strict=True)}
    found = beside(scored, n_draws=draws, level=level, seed=seed)
    if json_:
        as_json(dataclasses.asdict(found))
        return
    title = next(iter(scored.values())).task.title
    rows = []
    for one in found.runs:
        difference = _interval(one.difference) if one.difference is not None else "-"
        row = {"run": one.name, title: _interval(one.value), "less the first": difference}
        better = f"{one.better:.3f}" if one.better is not None else "-"
        rows.append(row | {"better": better, **{name: _interval(target) for name, target in one.targets.items()}})
    table(rows, ("run", title, "less the first", "better", *found.runs[0].targets))
    click.echo(f"\n{len(found.trials)} trials that all have; {level:.0%} intervals of {draws} draws of trials, seed {seed}")
    for one in found.runs:
        if one.left_out:
            click.echo(f"left out of {one.name}: {_some(one.left_out)}")


@click.command()
@click.argument("template", type=FOLDER)
@click.argument("predictions", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="The file to hand in.")
@_JSON
@_command
def submission(template: Path, predictions: tuple[Path, ...], out: Path, json_: bool) -> None:
    """The file to hand in: TEMPLATE's rows with PREDICTIONS, files or runs' folders; several for the multi-task challenge."""
    import dataclasses

    from trainer.submission import write_submission

    written = write_submission(template, [_predictions(path) for path in predictions], out)
    if json_:
        as_json(dataclasses.asdict(written))
        return
    for name, value in dataclasses.asdict(written).items():
        click.echo(f"{name.replace('_', ' ')}: {value if not isinstance(value, list | tuple) else _some(value) or 'none'}")


def _predictions(path: Path) -> Predictions:
    """A file, or a run's of what its folds held out. Raises TrainerError where there is none yet."""
    from trainer.errors import Problem, TrainerError
    from trainer.predictions_file import read_predictions
    from trainer.run_folder import read_run

    if not path.is_dir():
        return read_predictions(path)
    predictions = read_run(path).folder.predictions
    if not predictions.exists():
        why, fix = "the run was ended before its last fold", "run the same `affectpipe train` again: it goes on"
        raise TrainerError(Problem(what="is not finished", where=str(path), why=why, fix=fix))
    return read_predictions(predictions)


def _machine(device: str, workers: int) -> Machine:
    """Raises TrainerError where there is no such device."""
    import torch

    from trainer.errors import Problem, TrainerError
    from trainer.model import Machine

    if device == "auto":
        return Machine(device="cuda" if torch.cuda.is_available() else "cpu", workers=workers)
    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise RuntimeError("it is neither the processor nor a GPU of CUDA's")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).partition("\n")[0]
        raise TrainerError(Problem(what=f"no device {device!r}", where="--device", why=why, fix="give cpu, or auto")) from error
    return Machine(device=device, workers=workers)


def _names(paths: Sequence[Path]) -> list[str]:
    """As short as they are different. Raises TrainerError where two are the same."""
    from trainer.errors import Problem, TrainerError

    if len({path.resolve() for path in paths}) < len(paths):
        raise TrainerError(
            Problem(what="the same run twice", where="compare", why="it differs from itself in nothing", fix="name each once")
        )
    short = [path.name if path.is_dir() else path.stem for path in paths]
    return short if len(set(short)) == len(short) else list(map(str, paths))


def _interval(one: Any) -> str:
    return f"{one.value:.4f} [{one.low:.4f}, {one.high:.4f}]"


def _some(names: Iterable[Any]) -> str:
    from trainer.errors import named

    return named(map(str, names))
