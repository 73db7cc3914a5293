"""What every extractor gives depends neither on how many threads it may use, nor on what it was given before: to the last bit.

So that the same stages give the same bits in one process that has all cores, and in many that have one each. Where torch divides the work
among its own threads, eight of these fail on a processor with AVX-512: dan, both efficientnets, regnet_y, r2plus1d18, spectrogram_resnet18
and both of the wav2vec family.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from extractors.contract import Frames, Kind, Rows, Runtime, Waveform
from extractors.face import jpeg
from extractors.registry import load

Build = Callable[..., Any]
Bits = dict[str, bytes]
THREADS = 3  # neither a power of two nor, on most machines, the number of cores
# Wide enough for their layers to be divided at all; the stand-ins of the other tests are not.
WIDE = {"hidden_size": 768, "num_hidden_layers": 1, "num_attention_heads": 12, "intermediate_size": 768, "conv_dim": [512] * 7}
WIDE |= {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16}


@pytest.fixture
def made(name: str, build: Build, golden: types.ModuleType, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Build]:
    """made(params, threads=...): a new extractor, which may use so many, as torch may by itself."""
    before, folder = torch.get_num_threads(), None
    if name in golden.FOLDERS:
        monkeypatch.setitem(golden.FOLDERS, name, golden.FOLDERS[name] | WIDE)
        folder = golden.weight_file(name, tmp_path)

    def new(params: dict[str, Any], *, threads: int) -> Any:
        torch.set_num_threads(threads)
        if folder is None:
            return build(name, threads=threads, **params)
        return load(name)(load(name).Params(**params), Runtime(weights=folder, threads=threads))

    yield new
    torch.set_num_threads(before)


def bits(extractor: Any, golden: types.ModuleType, n: int) -> Bits:
    """Every array that it makes of n pictures, clips or half seconds of sound."""
    arrays = _from_source(extractor, golden, n) if extractor.yields is not Kind.FEATURE else _feature(extractor, golden, n)
    return {name: np.asarray(values).tobytes() for name, values in arrays.items()}


def _from_source(extractor: Any, golden: types.ModuleType, n: int) -> dict[str, Any]:
    if extractor.yields is Kind.TIMELINE:
        rows = extractor.rows(np.arange(n) / 7)
        return {"times_s": rows.times_s, "frame": rows.frame}
    if extractor.yields is Kind.WAVEFORM:
        return {"samples": extractor.condition(_sound(extractor, golden, n)).samples}
    photograph = golden.photograph()
    if hasattr(extractor, "read"):
        faces = extractor.read({at: jpeg.encode(np.roll(photograph, at, axis=1), 90) for at in range(n)}, np.arange(n))
    else:  # several faces a picture, and another size of picture for each n
        images = np.stack([np.roll(np.tile(photograph, (1, 1 + n % 2, 1)), 3 * at, axis=1) for at in range(n)])
        shown = Frames(images=images, times_s=np.arange(n) / 8, index=np.arange(n))
        faces = extractor.follow([shown], ["main"])["main"]
    arrays = {name: getattr(faces, name) for name in ("valid", "boxes", "landmarks", "prob", "track")}
    found = {f"found {name}": getattr(faces.found, name) for name in ("frame", "track", "boxes", "landmarks", "prob", "shots")}
    return arrays | found | {"crops": np.frombuffer(b"".join(faces.crops), np.uint8)}


def _feature(extractor: Any, golden: types.ModuleType, n: int) -> dict[str, Any]:
    if hasattr(extractor, "embed"):
        return {"values": extractor.embed(golden.crops(extractor.size_px)[np.arange(n) % 3])}
    if hasattr(extractor, "embed_clips"):
        return {"values": extractor.embed_clips(golden.clips(extractor)[np.arange(n // 3) % 3])}
    if hasattr(extractor, "read_table"):
        track = extractor.read_table(golden.units(), Rows(times_s=np.arange(n) / 25, frame=np.arange(n) % 4), 4)[0]
    else:
        track = extractor.extract(_sound(extractor, golden, n), np.arange(n) / 5)
    return {"values": track.values, "times_s": track.times_s, "valid": track.valid}


def _sound(extractor: Any, golden: types.ModuleType, n: int) -> Waveform:
    """Half a second for each of n."""
    rate_hz = golden.RATES_HZ.get(extractor.name, 16000)
    samples = 0.3 * golden.uniform("threads", n * rate_hz // 2)
    return Waveform(samples=np.asarray(samples, np.float32), rate_hz=rate_hz, valid=np.ones(50 * n, np.bool_))


def test_neither_threads_nor_what_came_before_decide_a_bit(name: str, rows: dict[str, Any], made: Build, golden: types.ModuleType) -> None:
    """One extractor has heard or seen nothing else, the other less and more of it, in other shapes."""
    others = [rows[name].params] if rows[name].params and rows[name].offers in ("follow", "clips", "extract") else []
    for params in ({}, *others):  # of pictures, other parameters may need other weights
        expected = bits(made(params, threads=1), golden, 19)
        assert any(expected.values())
        several = made(params, threads=THREADS)
        bits(several, golden, 6)
        assert bits(several, golden, 19) == expected
