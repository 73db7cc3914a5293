"""The folder of a training run: what was trained, on what, and where each model lies. See docs/formats.md."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store import Store, publish_text
from trainer.errors import Problem, TrainerError
from trainer.features import Chosen
from trainer.folds_file import read_folds, write_folds
from trainer.recipe import FIRST, Recipe, load_recipe
from trainer.splits import Fold, Folds

FORMAT, FORMAT_VERSION = "affectpipe/run", 1
RUN, RECIPE, FOLDS, PREDICTIONS, SCORES = "run.json", "recipe.yaml", "folds.json", "predictions.h5", "scores.json"
_MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Where things lie in it."""

    path: Path

    def model(self, fold: int, member: str) -> Path:
        return self.path / f"fold_{fold}" / member

    def first(self, fold: int, left_out: tuple[int, ...]) -> Path:
        """Of a first model, by the parts that it has not seen."""
        return self.path / f"fold_{fold}" / FIRST / f"without_{'_'.join(map(str, left_out))}"

    @property
    def predictions(self) -> Path:
        return self.path / PREDICTIONS

    @property
    def scores(self) -> Path:
        return self.path / SCORES


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a run is of. features: of each member, and of FIRST. columns: what is predicted. source: of each trial of the folds the digest
    of its video."""

    folder: RunFolder
    recipe: Recipe
    store: Path
    columns: tuple[str, ...]
    features: Mapping[str, Chosen]
    folds: Folds
    source: Mapping[str, str]

    def unseen(self, fold: Fold, trials: Mapping[str, str]) -> tuple[str, ...]:
        """Of trials, each with its video's digest, those that the fold's models have not learnt from, under whatever name."""
        names, sources = set(fold.train), {self.source[trial] for trial in fold.train}
        return tuple(trial for trial, source in trials.items() if trial not in names and source not in sources)


def begin(path: Path, recipe: Recipe, store: Store, columns: tuple[str, ...], features: Mapping[str, Chosen], folds: Folds) -> Trained:
    """Makes the folder, or goes on in it. Raises TrainerError where it holds another run, or other things."""
    index = store.index
    source = dict(zip(index.trials, index.source, strict=True))
    in_folds = sorted({trial for fold in folds.folds for trial in (*fold.train, *fold.validation)})
    trained = Trained(
        folder=RunFolder(path=path),
        recipe=recipe,
        store=store.folder.absolute(),
        columns=columns,
        features=features,
        folds=folds,
        source={trial: source[trial] for trial in in_folds},
    )
    said = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "recipe": recipe.name,
        "store": str(store.folder.absolute()),
        "rows": index.rows_digest,
        "task": recipe.task,
        "columns": list(columns),
        "features": {name: asdict(one) for name, one in features.items()},
        "data": _data(store, recipe.task, features),
        "source": trained.source,
    }
    if (path / RUN).exists():
        _check_same(path, said, recipe, folds, store)
        return trained
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise _refused(path, "is not empty", "it holds no run of the trainer", "name a new folder with --out")
    path.mkdir(parents=True, exist_ok=True)
    write_folds(path / FOLDS, folds)
    publish_text(path / RECIPE, recipe.text)
    publish_text(path / RUN, json.dumps(said, indent=1, ensure_ascii=False) + "\n")  # the last one: with it the folder is a run
    return trained


def _data(store: Store, task: str, features: Mapping[str, Chosen]) -> dict[str, str]:
    """Digests of all that is learnt from, by feature, and of the labels: another feature under the same name makes another run."""
    names = sorted({name for one in features.values() for name in one.names})
    labels = store.index.labels[task]
    digest = hashlib.sha256(np.ascontiguousarray(labels.valid).tobytes())
    digest.update(np.where(labels.valid, labels.values, 0).astype(np.float32).tobytes())
    return {name: store.open_feature(name).checksum for name in names} | {f"labels of {task}": f"sha256:{digest.hexdigest()}"}


def _check_same(path: Path, said: Mapping[str, Any], recipe: Recipe, folds: Folds, store: Store) -> None:
    """Raises TrainerError where the folder's run is another one than is asked for."""
    before = _said(path)
    now = json.loads(json.dumps(said))
    differing = [name for name in ("recipe", "rows", "task", "columns", "features") if before.get(name) != now[name]]
    was = before.get("data") or {}
    if changed := sorted(name for name, digest in now["data"].items() if was.get(name) != digest):
        differing.append(f"what the store holds of {', '.join(changed)}")
    if (path / RECIPE).read_text(encoding="utf-8") != recipe.text and "recipe" not in differing:
        differing.append("the recipe's settings")
    if "rows" not in differing and read_folds(path / FOLDS, store.index).folds != folds.folds:
        differing.append("folds")
    if differing:
        why = f"it differs in {', '.join(differing)}"
        raise _refused(path, "holds another run", why, "name a new folder with --out, or remove this one")


def read_run(path: Path) -> Trained:
    """Raises TrainerError where the folder holds no run, or a damaged one."""
    said = _said(path)
    recipe = load_recipe(str(path / RECIPE), name=str(said.get("recipe")))
    try:
        store = Path(said["store"])
        features = {name: Chosen(**{kind: tuple(names) for kind, names in one.items()}) for name, one in said["features"].items()}
        columns, source = tuple(map(str, said["columns"])), dict(said["source"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _refused(path / RUN, "is damaged", f"{type(error).__name__}: {error}", "train again") from error
    folds = read_folds(path / FOLDS)
    return Trained(folder=RunFolder(path=path), recipe=recipe, store=store, columns=columns, features=features, folds=folds, source=source)


def _said(path: Path) -> dict[str, Any]:
    fix = "name the folder that `affectpipe train --out` made"
    try:
        if (path / RUN).stat().st_size > _MAX_BYTES:
            raise _refused(path / RUN, "cannot be read", f"it is larger than {_MAX_BYTES >> 20} MiB", fix)
        said = json.loads((path / RUN).read_text(encoding="utf-8"))
    except OSError as error:
        raise _refused(path, "holds no run", error.strerror or str(error), fix) from error
    except (ValueError, RecursionError) as error:
        raise _refused(path / RUN, "is not JSON", str(error), "train again") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT or said.get("format_version") != FORMAT_VERSION:
        raise _refused(path / RUN, "is no run's", f"expected format {FORMAT!r}, version {FORMAT_VERSION}", fix)
    return said


def _refused(where: Path, what: str, why: str, fix: str) -> TrainerError:
    return TrainerError(Problem(what=what, where=str(where), why=why, fix=fix))
