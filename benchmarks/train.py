"""A step of zhou_va: how much of its time it waits for data, beside a loop that reads each batch when it needs it.

    python benchmarks/train.py [--trials 40] [--rows 3000] [--steps 12] [--batch 32] [--workers 0] [--device cpu] [--repeats 3]

A store of so many trials with the recipe's four features (1024, 1408, 512 and 512 numbers a row, float32), read as the recipe reads them:
batches of 32 windows of 300 rows, standardised, missing rows filled. The recipe's own network, loss and optimiser. `ahead` is what the
trainer does, a thread or worker processes that read while the last batch is computed; `in line` reads, then computes; `torch's DataLoader`
takes samples one by one, with as many workers. The ways alternate; each number is the median of the repeats. Waiting is the time from
asking for a batch to having it on the device; the first batch, for which any way has to wait, is not counted.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from pipeline.store import Labels, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index
from trainer.ahead import Ahead
from trainer.data import WindowDataset
from trainer.features import choose_features
from trainer.loader import BatchLoader
from trainer.model import Model, inputs_of, new_network, selection_for, task_for
from trainer.objective import Objective
from trainer.order import Order
from trainer.recipe import Learner, load_recipe
from trainer.schedules import new_optimiser
from trainer.standardiser import fit_standardiser

FEATURES = {"wav2vec2": (1024, "audio"), "efficientnet": (1408, "visual"), "dan_rafdb": (512, "visual"), "dan_affectnet": (512, "visual")}
AHEAD, IN_LINE, TORCH = "ahead", "in line", "torch's DataLoader"


def write(folder: Path, trials: int, rows: int) -> None:
    rng, n = np.random.default_rng(0), trials * rows
    values = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
    labels = Labels(columns=("valence", "arousal"), values=values, valid=np.ones((n, 2), np.bool_), per_trial=False)
    digest = write_index(folder, [MadeTrial(name=f"{trial}", n_rows=rows) for trial in range(trials)], {"va": labels})
    for name, (dim, modality) in FEATURES.items():
        blocks = ((rng.standard_normal((rows, dim), np.float32), rng.random(rows) < 0.95) for _ in range(trials))
        write_feature(folder, name, blocks, rows_digest=digest, shape=(n, dim), modality=modality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Of one measurement: seconds a step, and the share of them that it waited."""

    step_s: float
    waiting: float


class Step:
    """What the recipe does with a batch."""

    def __init__(self, model: Model, device: str) -> None:
        self.model, self.network = model, model.network.to(device).train()
        self.optimiser = new_optimiser(model.learner.training, self.network.parameters())

    def __call__(self, batch: Any) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        self.model.objective.loss(self.network(batch["features"], batch["rows_valid"]), batch).backward()
        self.optimiser.step()


def measure(step: Step, batches: Iterable[Any], device: str) -> Steps:
    iterator, waited_s, n = iter(batches), 0.0, 0
    step(next(iterator))
    _finish(device)
    began_s = time.perf_counter()
    while True:
        asked_s = time.perf_counter()
        batch = next(iterator, None)
        waited_s += time.perf_counter() - asked_s
        if batch is None:
            break
        step(batch)
        _finish(device)
        n += 1
    whole_s = time.perf_counter() - began_s
    return Steps(step_s=whole_s / n, waiting=waited_s / whole_s)


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


class First:
    """The first n batches of a way of reading, on the device."""

    def __init__(self, batches: Iterable[Any], n: int, device: str) -> None:
        self._batches, self._n, self._device = batches, n, device

    def __iter__(self) -> Iterator[Any]:
        for _, batch in zip(range(self._n), self._batches, strict=False):
            yield _moved(batch, self._device)


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, dict):
        return {name: _moved(one, device) for name, one in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


def prepared(store_folder: Path) -> tuple[Model, WindowDataset]:
    recipe, store = load_recipe("zhou_va"), open_store(store_folder)
    learner: Learner = recipe.members["model"]
    features, task = choose_features(store, learner.features), task_for(store, recipe.task)
    selection = selection_for(store, features, recipe.task)
    model = Model(
        learner=learner,
        features=features,
        objective=Objective(learner.loss, task),
        network=new_network(learner, inputs_of(selection.dims, features, learner, task)),
        standardiser=fit_standardiser(selection),
    )
    data = model.dataset(selection, labelled_only=True)
    assert isinstance(data, WindowDataset)
    return model, data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rows", type=int, default=3000, help="per trial")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, help="windows of a batch, the recipe's 32 where left out")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write, else the temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affectpipe-train-", dir=options.folder) as folder:
        write(Path(folder), options.trials, options.rows)
        model, data = prepared(Path(folder))
        batch = options.batch or model.learner.training.batch_size
        order = Order(data.trial, "windows", seed=0)
        n_batches = -(-len(data) // batch)
        print(f"{len(data)} windows in {n_batches} batches of {batch}, {sum(dim for dim, _ in FEATURES.values())} numbers a row;", end=" ")
        print(f"{options.workers} workers of {os.cpu_count()} cores, {torch.get_num_threads()} threads, on {options.device}")
        n = min(options.steps + 1, n_batches)

        def loader(workers: int) -> BatchLoader:
            return BatchLoader(data, order, batch_size=batch, workers=workers)

        ways: dict[str, Callable[[], Iterable[Any]]] = {
            AHEAD: lambda: First(Ahead(loader(options.workers), options.device), n, options.device),
            IN_LINE: lambda: First(loader(0), n, options.device),
            TORCH: lambda: First(DataLoader(data, batch, sampler=order, num_workers=options.workers), n, options.device),
        }
        step = Step(model, options.device)
        found: dict[str, list[Steps]] = {name: [] for name in ways}
        for _ in range(options.repeats):
            for name, batches in ways.items():
                found[name].append(measure(step, batches(), options.device))
    median = {name: statistics.median(one.step_s for one in each) for name, each in found.items()}
    for name, each in found.items():
        waiting = statistics.median(one.waiting for one in each)
        print(f"{name:20} {median[name] * 1e3:8.1f} ms a step, of which it waits {waiting:.2%}")
    for other in (IN_LINE, TORCH):
        print(f"ratio {other} / {AHEAD}: {median[other] / median[AHEAD]:.2f}")


if __name__ == "__main__":
    main()
