"""Random windows of six features through DataLoader workers: from a store, beside numpy's memory maps, and beside whole files.

    python benchmarks/reader.py [--trials 40] [--rows 5000] [--dtype float16] [--batches 60] [--workers 2] [--repeats 3] [--cold]

A store of so many trials (the aim is stated for --trials 200) with 3,000 numbers a row in six features, and the same arrays as .npy
files: per feature one of all rows, which is memory-mapped, and per video one, which is loaded whole. All give the same windows of 300
rows as float32 tensors in batches of 32. The store is read by `BatchLoader`, with and without standardising, and, sample by sample, by
torch's DataLoader and its own collation, by which the .npy files are read too; the store's samples have masks and labels besides. The
ways alternate; each number is the median of the repeats. Windows a second are counted once what the workers prefetch is there; processor
time is that of the whole epoch, workers and all, and tells the same where other work runs beside. Warm: everything was read once before.
Cold: before each measurement the system is asked to forget the files (posix_fadvise), which are on the folder's disk.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pipeline.store import Labels, open_store
from pipeline.synth.store import MadeTrial, write_feature, write_index
from trainer.data import WindowDataset
from trainer.loader import PREFETCH, BatchLoader
from trainer.order import Order
from trainer.selection import select
from trainer.standardiser import fit_standardiser

DIMS = {"wav2vec2": 1024, "arcface": 512, "dan": 512, "ir50": 512, "dino": 384, "egemaps": 56}
ROWS, STRIDE, BATCH = 300, 200, 32
OURS = ("store", "store, standardised", "store, sample by sample")
MAPS, FILES = "numpy memory maps", "whole .npy files"


class Mapped(Dataset[dict[str, torch.Tensor]]):
    """The same windows out of one .npy file per feature, memory-mapped when a process first reads."""

    def __init__(self, folder: Path, first: np.ndarray) -> None:
        self.folder, self.first = folder, first
        self.maps: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        if not self.maps:
            self.maps = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in DIMS}
        start = self.first[i]
        return {name: torch.from_numpy(np.array(values[start : start + ROWS])).float() for name, values in self.maps.items()}


class Whole(Dataset[dict[str, torch.Tensor]]):
    """The same windows out of one .npy file per video and feature, loaded whole for each."""

    def __init__(self, folder: Path, trial: np.ndarray, start: np.ndarray) -> None:
        self.folder, self.trial, self.start = folder, trial, start

    def __len__(self) -> int:
        return len(self.trial)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        loaded = {name: np.load(self.folder / f"{name}_{self.trial[i]}.npy") for name in DIMS}
        rows = slice(self.start[i], self.start[i] + ROWS)
        return {name: torch.from_numpy(values[rows]).float() for name, values in loaded.items()}


def blocks(folder: Path, name: str, options: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A feature's rows, trial by trial, also written as the two kinds of .npy files."""
    rng = np.random.default_rng(len(name))
    shape = (options.trials * options.rows, DIMS[name])
    mapped = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", options.dtype, shape)
    for trial in range(options.trials):
        values = rng.standard_normal((options.rows, DIMS[name]), np.float32).astype(options.dtype)
        mapped[trial * options.rows : (trial + 1) * options.rows] = values
        np.save(folder / f"{name}_{trial}.npy", values)
        yield values, rng.random(options.rows) < 0.95


def write(root: Path, options: argparse.Namespace) -> None:
    """ROOT/store, ROOT/arrays."""
    store, arrays = root / "store", root / "arrays"
    store.mkdir()
    arrays.mkdir()
    n = options.trials * options.rows
    trials = [MadeTrial(name=f"{trial}", n_rows=options.rows) for trial in range(options.trials)]
    values = np.random.default_rng(0).uniform(-1, 1, (n, 2)).astype(np.float32)
    labels = Labels(columns=("valence", "arousal"), values=values, valid=np.ones((n, 2), np.bool_), per_trial=False)
    digest = write_index(store, trials, {"va": labels})
    for name, dim in DIMS.items():
        write_feature(store, name, blocks(arrays, name, options), rows_digest=digest, shape=(n, dim), dtype=options.dtype)


def forget(root: Path) -> None:
    """Ask the system to drop what it holds of the files; what is not yet on the disk it cannot drop."""
    os.sync()
    for path in root.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Windows a second by the clock, and milliseconds of processor time each."""

    windows_per_s: float
    cpu_ms: float


def cpu_s() -> float:
    """Of this process and of those children that have ended."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def speed(batches: Iterable[Any], options: argparse.Namespace) -> Speed:
    ahead = PREFETCH * max(options.workers, 1)
    started_cpu_s, n, started_s = cpu_s(), 0, 0.0
    for _ in batches:
        n += 1
        if n == ahead:
            started_s = time.perf_counter()
    wall_s = time.perf_counter() - started_s
    return Speed(windows_per_s=(n - ahead) * BATCH / wall_s, cpu_ms=(cpu_s() - started_cpu_s) / (n * BATCH) * 1e3)


class Drawn:
    """An order of so many windows, epoch after epoch where one has fewer."""

    def __init__(self, trial: np.ndarray, n: int, seed: int) -> None:
        order, self.chosen = Order(trial, "windows", seed=seed), np.zeros(0, np.int64)
        while len(self.chosen) < n:
            self.chosen = np.concatenate([self.chosen, order.indices()])[:n]
            order.set_epoch(order.epoch + 1)

    def __len__(self) -> int:
        return len(self.chosen)

    def __iter__(self) -> Iterator[int]:
        return iter(self.chosen.tolist())


def measure(root: Path, options: argparse.Namespace) -> dict[str, list[Speed]]:
    """Per way of reading one speed for each repeat."""
    chosen = select(open_store(root / "store"), list(DIMS), task="va")
    started_s = time.perf_counter()
    standardiser = fit_standardiser(chosen)
    print(f"fitting the standardisation: {time.perf_counter() - started_s:.1f} s")
    plain = WindowDataset(chosen, rows=ROWS, stride=STRIDE)
    standardised = WindowDataset(chosen, rows=ROWS, stride=STRIDE, standardiser=standardiser)
    trial, start = plain.windows.trial, plain.windows.start
    mapped, whole = Mapped(root / "arrays", chosen.offsets[trial] + start), Whole(root / "arrays", trial, start)
    same(plain, mapped, whole)

    def batched(data: WindowDataset) -> Callable[[Any], Iterable[Any]]:
        return lambda order: BatchLoader(data, order, batch_size=BATCH, workers=options.workers)

    def collated(data: Dataset[Any]) -> Callable[[Any], Iterable[Any]]:
        return lambda order: DataLoader(data, batch_size=BATCH, sampler=order, num_workers=options.workers)

    ways = {
        OURS[0]: batched(plain),
        OURS[1]: batched(standardised),
        OURS[2]: collated(plain),
        MAPS: collated(mapped),
        FILES: collated(whole),
    }
    found: dict[str, list[Speed]] = {name: [] for name in ways}
    for repeat in range(options.repeats + (not options.cold)):  # the first of all warms what is to be warm
        for name, load in ways.items():
            n = options.batches // (6 if name == FILES else 1) + PREFETCH * max(options.workers, 1)
            order = Drawn(trial, n * BATCH, seed=repeat)
            if options.cold:
                forget(root)
            found[name].append(speed(load(order), options))
    return {name: speeds[-options.repeats :] for name, speeds in found.items()}


def same(ours: WindowDataset, *others: Dataset[Any]) -> None:
    """All ways give the same numbers, where the store says that they are valid."""
    for i in (0, len(ours) - 1):
        sample = ours[i]
        for other in others:
            for name, values in other[i].items():
                valid = sample["feature_valid"][name]
                assert torch.equal(values[valid], sample["features"][name][valid]), f"{name} of window {i} differs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--rows", type=int, default=5000, help="per trial, 300 or more")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--batches", type=int, default=60, help="measured, of 32 windows each; a sixth of them for the whole files")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="with the files out of the page cache")
    parser.add_argument("--folder", type=Path, help="where to write, else the temporary folder; three times the store's size")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="affectpipe-reader-", dir=options.folder) as folder:
        root = Path(folder)
        write(root, options)
        gigabytes = sum(path.stat().st_size for path in (root / "store").iterdir()) / 1e9
        state = "cold" if options.cold else "warm"
        shape = f"{options.trials} trials x {options.rows} rows x {sum(DIMS.values())} numbers"
        print(f"{shape}, {options.dtype}, {gigabytes:.1f} GB; {options.workers} workers of {os.cpu_count()} cores; page cache {state}")
        found = measure(root, options)
    for name, speeds in found.items():
        rates = [each.windows_per_s for each in speeds]
        print(
            f"{name:26} {statistics.median(rates):7.1f} windows/s  (min {min(rates):.1f}, max {max(rates):.1f}),"
            f" {statistics.median(each.cpu_ms for each in speeds):5.2f} ms of processor time each"
        )
    for other in (MAPS, FILES):
        for ours in OURS:
            rate, cpu = (ratios(found[ours], found[other], name) for name in ("windows_per_s", "cpu_ms"))
            print(f"ratio {ours} / {other}: {rate:.2f}; by processor time {1 / cpu:.2f}")


def ratios(ours: list[Speed], others: list[Speed], name: str) -> float:
    """The median of the repeats' ratios: what was measured side by side."""
    return statistics.median(getattr(a, name) / getattr(b, name) for a, b in zip(ours, others, strict=True))


if __name__ == "__main__":
    main()
