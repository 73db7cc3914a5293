"""The extractors that the conformance tests run over, one row each, and what they are run with.

A test that takes `name` is run for every extractor; `embedder`, `clipper`, `cropper`, `listener` and `row_listener` (a listener with one
row per row of the timeline) stand for those of one kind.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from extractors.contract import Kind, Runtime
from extractors.registry import load

MAKE_OUTPUTS = Path(__file__).resolve().parents[1] / "golden" / "make_outputs.py"
Build = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of an extractor apart from its code.

    params: for every parameter a value other than its default. any_rate: it hears sound of any rate, not of rate_hz only.
    far: a row hears sound far before and after it, up to all of it. resample: how its reference brings pictures to size.
    window_param: the parameter that says how many rows of the timeline its window spans, where the window is not in seconds.
    """

    yields: Kind
    offers: Literal["rows", "condition", "follow", "read", "read_table", "embed", "clips", "extract"]
    reads: tuple[Kind, ...] = ()
    dim: int = 0
    any_rate: bool = False
    far: bool = False
    resample: str = "area"
    rate_hz: int = 16000
    window_param: str = ""
    params: dict[str, Any] = field(default_factory=dict)


HEARS, HEARS_ROWS = (Kind.WAVEFORM,), (Kind.WAVEFORM, Kind.TIMELINE)
SEARCH = {"min_face_px": 30, "mode": "exact", "redetect_s": 0.3, "search_s": 0.0, "min_prob": 0.8, "min_track_s": 0.1}
CLIPS = {"clip_frames": 9, "dilation": 2, "stride": 3, "anchor": "centre", "output": "map"}
CROPS = {"size_px": 160, "template": "box", "margin": 0.1, "coding": "raw", "jpeg_quality": 80}
MTCNN = {**SEARCH, "person": "left", "track": 0, **CROPS}
ROWS = {
    "timeline": Row(yields=Kind.TIMELINE, offers="rows", params={"rate_hz": 25.0}),
    "waveform": Row(yields=Kind.WAVEFORM, offers="condition", params={"rate_hz": 8000, "peak_dbfs": -1.0}),
    "mtcnn": Row(yields=Kind.FACES, offers="follow", reads=(Kind.TIMELINE,), params=MTCNN),
    "folder": Row(yields=Kind.FACES, offers="read", reads=(Kind.TIMELINE,), params={"size_px": 224, "jpeg_quality": 80}),
    "onet": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=256),
    "iresnet18": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512),
    "iresnet34": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512),
    "iresnet50": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512),
    "iresnet100": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512),
    "ir50": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512, resample="pil_bicubic"),
    "dan": Row(yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512, resample="pil_bilinear", params={"feature": "head_raw"}),
    "resnet18": Row(
        yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=512, resample="pil_bilinear", params={"output": "logits"}
    ),
    "efficientnet_b0": Row(
        yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=1280, resample="pil_bilinear", params={"output": "logits"}
    ),
    "efficientnet_b2": Row(
        yields=Kind.FEATURE, offers="embed", reads=(Kind.FACES,), dim=1408, resample="pil_bilinear", params={"output": "logits"}
    ),
    "regnet_y": Row(
        yields=Kind.FEATURE,
        offers="embed",
        reads=(Kind.FACES,),
        dim=440,
        resample="pil_bilinear",
        params={"size": "1_6gf", "input_px": 224},
    ),
    "dino_vit": Row(
        yields=Kind.FEATURE,
        offers="embed",
        reads=(Kind.FACES,),
        dim=384,
        resample="pil_bicubic",
        params={"size": "s8", "normalisation": "half"},
    ),
    "openface": Row(yields=Kind.FEATURE, offers="read_table", reads=(Kind.TIMELINE,), dim=36, params={"columns": "paired"}),
    "r3d18": Row(yields=Kind.FEATURE, offers="clips", reads=(Kind.FACES,), dim=512, params=CLIPS),
    "r2plus1d18": Row(yields=Kind.FEATURE, offers="clips", reads=(Kind.FACES,), dim=512, params=CLIPS),
    "spectrogram_resnet18": Row(
        yields=Kind.FEATURE,
        offers="extract",
        reads=HEARS_ROWS,
        dim=512,
        rate_hz=44100,
        window_param="frames",
        params={"frames": 16},
    ),
    "vggish": Row(yields=Kind.FEATURE, offers="extract", reads=HEARS_ROWS, dim=128, params={"hop": "native", "output": "relu"}),
    "logmel": Row(yields=Kind.FEATURE, offers="extract", reads=HEARS, dim=64),
    "mfcc39": Row(yields=Kind.FEATURE, offers="extract", reads=HEARS, dim=39, params={"hop": "timeline"}),
    "wav2vec2": Row(
        yields=Kind.FEATURE,
        offers="extract",
        reads=HEARS,
        dim=32,  # of the stand-in
        far=True,
        params={"layer": 2, "output": "last4_mean", "chunk_s": 4.0, "overlap_s": 1.5},
    ),
    "wav2vec2_emotion": Row(
        yields=Kind.FEATURE,
        offers="extract",
        reads=HEARS,
        dim=32,
        far=True,
        params={"output": "scores", "window_s": 0.5, "hop": "window", "anchor": "end", "chunk_s": 4.0, "overlap_s": 1.5},
    ),
    "egemaps_lld": Row(yields=Kind.FEATURE, offers="extract", reads=HEARS, dim=25, any_rate=True, params={"feature_set": "eGeMAPSv01a"}),
    "egemaps_functionals": Row(
        yields=Kind.FEATURE,
        offers="extract",
        reads=HEARS_ROWS,
        dim=88,
        any_rate=True,
        params={"feature_set": "eGeMAPSv01b", "window_s": 0.5, "hop": "window", "anchor": "end"},
    ),
    "compare_lld": Row(yields=Kind.FEATURE, offers="extract", reads=HEARS, dim=65, any_rate=True, params={"deltas": True}),
}


FIXTURES = ("name", "embedder", "cropper", "listener", "row_listener", "clipper", "clip_name")


def _offering(*methods: str) -> list[str]:
    return [name for name, row in ROWS.items() if row.offers in methods]


def _listeners(*, reading_rows: bool = False) -> list[Any]:
    """(name, parameters) of every extractor of sound, with its defaults and with its row's parameters."""
    pairs = _pairs("extract")
    if reading_rows:
        pairs = [(name, params) for name, params in pairs if Kind.TIMELINE in load(name).reads(load(name).Params(**params))]
    return _named(pairs)


def _pairs(method: str) -> list[tuple[str, dict[str, Any]]]:
    return [(name, params) for name in _offering(method) for params in ([{}, ROWS[name].params] if ROWS[name].params else [{}])]


def _named(pairs: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(pair, id=f"{pair[0]}-other" if pair[1] else pair[0]) for pair in pairs]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = {"name": ROWS, "embedder": _offering("embed"), "cropper": _offering("follow", "read")}
    found |= {"listener": _listeners(), "row_listener": _listeners(reading_rows=True)}
    found |= {"clipper": _named(_pairs("clips")), "clip_name": _offering("clips")}
    for fixture, cases in found.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, cases)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One extractor after the other, so that few have to be kept."""

    def about(item: pytest.Item) -> str:
        values = getattr(getattr(item, "callspec", None), "params", {})
        found = next((values[fixture] for fixture in FIXTURES if fixture in values), "")
        return found[0] if isinstance(found, tuple) else str(found)

    ours = [number for number, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    for number, item in zip(ours, sorted((items[number] for number in ours), key=about), strict=True):
        items[number] = item


@pytest.fixture(scope="session")
def rows() -> dict[str, Row]:
    """The table."""
    return ROWS


@pytest.fixture(scope="session")
def golden() -> types.ModuleType:
    """The script that records golden outputs: its stand-in weights, sound and pictures."""
    spec = importlib.util.spec_from_file_location("make_outputs", MAKE_OUTPUTS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small batches gain nothing from torch's threads, which spin while they wait: on a busy machine that takes minutes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def build(golden: types.ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """build(name, precision=..., threads=..., **params): a new extractor, with stand-in weights where it needs some."""
    folder = tmp_path_factory.mktemp("weights")
    weights = functools.cache(lambda name: golden.weight_file(name, folder))

    def new(name: str, precision: str = "float32", threads: int = 1, **params: Any) -> Any:
        return load(name)(load(name).Params(**params), Runtime(weights=weights(name), precision=precision, threads=threads))

    yield new
    shutil.rmtree(folder)  # half a gigabyte, which pytest would keep for three runs


@pytest.fixture(scope="session")
def kept(build: Build) -> Build:
    """As build, but the same extractor again for the same name and parameters, if it is not long ago."""
    return functools.lru_cache(4)(build)
