"""Training one model on some trials, from its first epoch or from where it was ended."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from trainer.ahead import Ahead
from trainer.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from trainer.errors import Problem, TrainerError
from trainer.loader import BatchLoader
from trainer.logs import Log
from trainer.metrics import Score
from trainer.model import Machine, Model
from trainer.order import Order
from trainer.recipe import Training
from trainer.schedules import Schedule, new_optimiser
from trainer.selection import Selection

CHECKPOINT = "checkpoint.pt"
_PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
Judge = Callable[[Model], Score]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """best_epoch: the one whose weights the model has, from 1. value: on the held-out trials after it; None where nothing was held out."""

    best_epoch: int
    value: float | None
    n_epochs: int


def seed_of(*parts: object) -> int:
    """A seed that follows from these, and is unlike that of any others."""
    return int.from_bytes(hashlib.sha256("|".join(map(str, parts)).encode()).digest()[:7], "big")


def fit(
    model: Model,
    train: Selection,
    folder: Path,
    *,
    name: str,
    machine: Machine,
    judge: Judge | None = None,
    told: Callable[[str], None] | None = None,
) -> Fitted:
    """Trains the model's network, in its place; it ends in eval mode, on the machine's device, with the weights that the recipe keeps.

    train: with labels. name: of this model among others of a run; with the recipe's seed it decides all that is drawn. folder: gets
    checkpoint.pt after every epoch, from which this goes on where an earlier call was ended, bit for bit on a CPU, and the logs.
    judge: scores the model on trials that are held out. told: one line per epoch.

    Raises TrainerError where the loss is no number, or the folder holds the checkpoint of another training.
    """
    run = _Run(model, train, folder, name, machine, judge)
    while not run.is_finished:
        run.epoch()
        if told is not None:
            told(run.line())
    return run.end()


class _Run:
    def __init__(self, model: Model, train: Selection, folder: Path, name: str, machine: Machine, judge: Judge | None) -> None:
        self.model, self.folder, self.name, self.machine, self.judge = model, folder, name, machine, judge
        self.training: Training = model.learner.training
        self.network = model.network.to(machine.device)
        data = model.dataset(train, labelled_only=True)
        self.order = Order(data.trial, "windows", seed=seed_of(self.training.seed, name) % 2**32)
        self.loader = BatchLoader(data, self.order, batch_size=self.training.batch_size, workers=machine.workers)
        self.optimiser = new_optimiser(self.training, self.network.parameters())
        self.schedule = Schedule(self.training, self.optimiser, len(self.loader))
        on_gpu = torch.device(machine.device).type == "cuda"
        self.dtype = _PRECISIONS.get(self.training.precision) if on_gpu else None
        self.scaler = GradScaler(machine.device, enabled=self.dtype is torch.float16)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"value": None, "epoch": 0, "weights": {}}  # what is kept
        self.peak = (-math.inf, 0)  # the highest value, and its epoch
        self.is_finished = False
        self.made_for = {"name": name, "trials": list(train.names), "learner": repr(model.learner), "features": list(train.features)}
        folder.mkdir(parents=True, exist_ok=True)
        self._restore()
        self.log = Log(folder, len(self.history)) if not self.is_finished else None

    def epoch(self) -> None:
        number = len(self.history) + 1
        torch.manual_seed(seed_of(self.training.seed, self.name, number))
        self.order.set_epoch(number)
        began, lr = time.perf_counter(), self.optimiser.param_groups[0]["lr"]
        loss, waited_s = self._train()
        trained_s = time.perf_counter() - began
        score = self.judge(self.model) if self.judge is not None else None
        value = score.value if score is not None else -loss
        self.schedule.epoch_done(value)
        self._note_best(number, value)
        targets = {f"value_{target}": one for target, one in score.targets.items()} if score is not None else {}
        row = {"epoch": number, "lr": lr, "loss": loss, "value": score.value if score is not None else None, **targets}
        self.history.append(row | {"seconds": time.perf_counter() - began, "waiting_share": waited_s / trained_s})
        stale = number - self.peak[1]
        self.is_finished = number >= self.training.epochs or 0 < self.training.patience <= stale
        if self.log is not None:
            self.log.epoch(self.history)
        self._save()

    def _train(self) -> tuple[float, float]:
        """The mean loss of the epoch's batches, and how long it waited for them."""
        self.network.train()
        batches, losses = Ahead(self.loader, self.machine.device), []
        for batch in batches:
            self.optimiser.zero_grad(set_to_none=True)
            with torch.autocast(torch.device(self.machine.device).type, self.dtype, enabled=self.dtype is not None):
                outputs = self.network(batch["features"], batch["rows_valid"])
            loss = self.model.objective.loss(outputs, batch)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if self.training.clip_norm:
                self.scaler.unscale_(self.optimiser)
                nn.utils.clip_grad_norm_(self.network.parameters(), self.training.clip_norm)
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.schedule.step()
            losses.append(loss.detach())
        mean = float(torch.stack(losses).mean())
        if not math.isfinite(mean):
            where, why = f"{self.name}, epoch {len(self.history) + 1}", f"it is {mean}"
            fix = "lower training.lr, or set training.clip_norm"
            raise TrainerError(Problem(what="the loss is no number", where=where, why=why, fix=fix))
        return mean, batches.waited_s

    def _note_best(self, number: int, value: float) -> None:
        """The epoch that is kept so far, and the best, which may be another."""
        if value > self.peak[0] or not self.peak[1]:
            self.peak = (value, number)
        if self.training.keep == "last" or self.best["value"] is None or value > self.best["value"]:
            self.best = {"value": value, "epoch": number, "weights": copy.deepcopy(self.network.state_dict())}

    def line(self) -> str:
        row = self.history[-1]
        value = f", {self.model.task.title} {row['value']:.4f}" if row["value"] is not None else ""
        best = f" (best {self.peak[0]:.4f}, epoch {self.peak[1]})" if row["value"] is not None else ""
        return f"{self.name}: epoch {row['epoch']} of {self.training.epochs}, loss {row['loss']:.4f}{value}{best}"

    def end(self) -> Fitted:
        if self.log is not None:
            self.log.close()
        self.network.load_state_dict(self.best["weights"])
        self.network.eval()
        value = self.best["value"] if self.judge is not None else None
        return Fitted(best_epoch=self.best["epoch"], value=value, n_epochs=len(self.history))

    def _parts(self) -> Mapping[str, Any]:
        return {"network": self.network, "optimiser": self.optimiser, "schedule": self.schedule, "scaler": self.scaler}

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self._parts().items()} | {"history": self.history, "peak": list(self.peak)}
        if self.is_finished:  # what is left is to predict, and that takes the best weights only
            state = {"history": self.history}
        checkpoint = Checkpoint(epoch=len(self.history), state=state, best=self.best, finished=self.is_finished, made_for=self.made_for)
        write_checkpoint(self.folder / CHECKPOINT, checkpoint)

    def _restore(self) -> None:
        found = read_checkpoint(self.folder / CHECKPOINT, self.machine.device)
        if found is None:
            return
        if found.made_for != self.made_for:
            differing = [name for name in self.made_for if found.made_for.get(name) != self.made_for[name]]
            why, fix = f"it differs in: {', '.join(differing)}", "name another folder with --out, or remove this one"
            raise TrainerError(Problem(what="is of another training", where=str(self.folder / CHECKPOINT), why=why, fix=fix))
        try:
            self.history, self.best, self.is_finished = found.state["history"], found.best, found.finished
            if self.is_finished:
                self.network.load_state_dict(self.best["weights"])
            else:
                self.peak = (float(found.state["peak"][0]), int(found.state["peak"][1]))
                for name, part in self._parts().items():
                    part.load_state_dict(found.state[name])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            why, fix = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", "remove it, and it is trained again"
            raise TrainerError(Problem(what="is damaged", where=str(self.folder / CHECKPOINT), why=why, fix=fix)) from error
