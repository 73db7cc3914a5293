"""How much of its time an extractor's stage spends in its network: the stage as `affectpipe run` has it, beside the bare network.

    python benchmarks/features.py [NAME ...] [--seconds 8] [--device cpu] [--precision float32] [--repeats 3]

The stage reads the faces or waveform artifact, makes the network's input of it, runs the network and writes the artifact. The bare network
gets the very tensors that the stage gave it, ready on the device, in the same parts on as many threads. Weights are pseudo-random. The
ratio is that of the fastest of the repeats, which alternate; it is 1 where nothing but the network takes time. Extractors without a network
are timed alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extractors.contract import Detections, Faces, Kind, Rows, Runtime, Waveform
from extractors.face import jpeg
from extractors.layers import divided
from extractors.registry import EXTRACTORS, load
from extractors.threads import crew
from pipeline import artifact, stages
from pipeline.artifact import Provenance
from pipeline.spent import Spent
from pipeline.stages import Item, Recipe
from pipeline.threads import allowed_threads

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "make_outputs.py"
ROWS_PER_S = 25
# Of the stand-ins for saved models, which are tiny elsewhere: the published sizes.
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "conv_dim": [512] * 7}
LARGE = BASE | {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
PUBLISHED = {"wav2vec2": BASE, "wav2vec2_emotion": LARGE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds for the whole stage and for the bare network; rows: of the feature."""

    whole_s: float
    bare_s: float
    rows: int


def golden() -> Any:
    """The script that knows stand-in weights, sound and pictures for every extractor."""
    spec = importlib.util.spec_from_file_location("make_outputs", GOLDEN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def about(stage: str, inputs: Sequence[str] = ()) -> Provenance:
    part = {"extractor": stage, "version": 1, "params": {}, "precision": "float32", "weights": None, "decoder": None}
    identity = {"stage": part, "source": "", "person": None, "pictures": None, "inputs": list(inputs)}
    return Provenance(key="0" * 64, stage=stage, trial="clip", licence="", code="", identity=identity, seconds=0.0)


def write_inputs(folder: Path, made: Any, seconds: float, rate_hz: int) -> dict[Kind, Path]:
    """A timeline, aligned faces of 112 px and a sound of so many seconds, as artifacts."""
    n = round(seconds * ROWS_PER_S)
    rows = Rows(times_s=np.arange(n) / ROWS_PER_S, frame=np.arange(n))
    paths = {kind: folder / f"{kind}.h5" for kind in (Kind.TIMELINE, Kind.FACES, Kind.WAVEFORM)}
    artifact.write_timeline(paths[Kind.TIMELINE], about("timeline"), rows=rows, source_times_s=rows.times_s)
    pictures = made.crops(112)
    crops = [jpeg.encode(np.roll(pictures[i % len(pictures)], i, axis=1), 95) for i in range(n)]
    box, points = np.tile(np.array([[0, 0, 112, 112]], np.float32), (n, 1)), np.zeros((n, 5, 2), np.float32)
    faces = Faces(
        size_px=112,
        coding="jpeg",
        frame=rows.frame,
        valid=np.ones(n, np.bool_),
        boxes=box,
        landmarks=points,
        prob=np.ones(n, np.float32),
        track=np.zeros(n, np.int64),
        crops=crops,
        found=Detections.none(),
    )
    artifact.write_faces(paths[Kind.FACES], about("faces"), faces=faces, rows=rows)
    samples = np.asarray(np.random.default_rng(0).normal(0, 0.1, round(seconds * rate_hz)), np.float32)
    waveform = Waveform(samples=samples, rate_hz=rate_hz, valid=np.ones(-(-len(samples) // (rate_hz // 100)), np.bool_))
    artifact.write_waveform(paths[Kind.WAVEFORM], about("audio"), waveform=waveform)
    return paths


def networks_of(extractor: Any) -> Iterator[Any]:
    from torch import nn

    slots = [getattr(extractor, name) for name in getattr(extractor, "__dict__", {})]
    return (value for value in slots if isinstance(value, nn.Module))


def record(extractor: Any, run: Callable[[], None]) -> list[tuple[Any, tuple[Any, ...], dict[str, Any]]]:
    """Every call of the extractor's networks while it runs: the network, and what it was given."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    hooks = [
        network.register_forward_pre_hook(lambda module, args, kwargs: calls.append((module, args, kwargs)), with_kwargs=True)
        for network in networks_of(extractor)
    ]
    run()
    for hook in hooks:
        hook.remove()
    return calls


def alone(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any], share: Any) -> None:
    """A recorded call again. On a processor, one long sequence is divided among the threads, as it was."""
    import torch

    whole = args[0].device.type == "cpu" and len(args[0]) == 1
    with torch.inference_mode(), divided(share) if whole else nullcontext():
        network(*args, **kwargs)


def measure(name: str, made: Any, options: argparse.Namespace) -> Measured:
    import torch

    extractor_class = load(name)
    with tempfile.TemporaryDirectory(prefix="affectpipe-extractors-") as folder:
        root = Path(folder)
        paths = write_inputs(root, made, options.seconds, made.RATES_HZ.get(name, 16000))
        params = extractor_class.Params()
        weights, threads = made.weight_file(name, root), allowed_threads()
        runtime = Runtime(device=options.device, precision=options.precision, weights=weights, threads=threads)
        extractor, reads = extractor_class(params, runtime), tuple(extractor_class.reads(params))
        item = Item(key="0" * 64, trial="clip", person="main", inputs=tuple(paths[kind] for kind in reads), target=root / "out.h5")
        recipe = Recipe(yields=Kind.FEATURE, reads=reads, extractor=extractor)

        def whole() -> None:
            stages.run(recipe, root, [item], lambda item, write, *_: write(item.target, about(name)), Spent())

        calls = record(extractor, whole)

        def bare() -> None:
            share = crew(runtime.threads if options.device == "cpu" else 1).map
            share(lambda call: alone(*call, share), calls)
            if options.device != "cpu":
                torch.cuda.synchronize()

        seconds: dict[Callable[[], None], float] = {}
        for _ in range(options.repeats):
            for job in (bare, whole):
                started = time.perf_counter()
                job()
                seconds[job] = min(seconds.get(job, np.inf), time.perf_counter() - started)
        return Measured(whole_s=seconds[whole], bare_s=seconds[bare] if calls else 0.0, rows=len(artifact.read_track(item.target).values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    features = [name for name in EXTRACTORS if load(name).yields is Kind.FEATURE and name != "openface"]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(features)}; all of them where none is given")
    parser.add_argument("--seconds", type=float, default=8.0, help="of video and sound")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.names) - set(features):
        parser.error(f"no extractor of features: {', '.join(sorted(unknown))}")
    made = golden()
    for name, sizes in PUBLISHED.items():
        made.FOLDERS[name] = made.FOLDERS[name] | sizes
    print("| extractor | rows | stage: s | rows/s | bare network: s | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for name in options.names or features:
        found = measure(name, made, options)
        bare = (f"{found.bare_s:.2f}", f"{found.bare_s / found.whole_s:.2f}") if found.bare_s else ("-", "-")
        print(f"| {name} | {found.rows} | {found.whole_s:.2f} | {found.rows / found.whole_s:.1f} | {bare[0]} | {bare[1]} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
