"""The stages file: what a good one becomes, what is wrong as a whole, and all mistakes at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from extractors.contract import Kind
from extractors.registry import EXTRACTORS
from pipeline.config import StoreSpec, load
from pipeline.errors import RequestError

HEAD = "version: 1\nstages:\n  timeline: {use: timeline}\n"
FACES = "  faces: {use: mtcnn, from: timeline}\n"
SOUND = "  audio: {use: waveform}\n"

OUTSIDE = """
from dataclasses import dataclass
from extractors.contract import Kind
from extractors.registry import EXTRACTORS

@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    scales: tuple[float, ...] = (1.0, 2.0)
    label: str = "x"
    fast: bool = False

class Fused:
    name, version, Params, yields, decoder = "fused", 3, Params, Kind.FEATURE, None
    precisions, needs_weights, origin, licence = ("float32",), False, "", "MIT"
    @staticmethod
    def reads(params):
        return (Kind.FEATURE,)
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An extractor's module outside the packages; its name."""
    (tmp_path / "outside_ext.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "outside_ext", raising=False)
    return "outside_ext"


def write(folder: Path, text: str) -> Path:
    path = folder / "stages.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def complaints(folder: Path, text: str) -> list[str]:
    with pytest.raises(RequestError, match=r"stages\.yaml") as caught:
        load(write(folder, text))
    return [str(problem) for problem in caught.value.problems]


def test_a_good_file_is_read_typed_and_ordered(tmp_path: Path) -> None:
    text = """version: 1
stages:
  egemaps: {use: egemaps_lld, from: audio}
  onet: {use: onet, from: faces}
  faces: {use: mtcnn, from: timeline, min_face_px: 60, min_prob: 1}
  audio: {use: waveform, peak_dbfs: -3}
  timeline: {use: timeline, rate_hz: 30}
store:
  rows: timeline
  dtype: float32
  align: {default: linear, onet: mean}
  fill: {onet: nearest}
  tail: trim
  tolerance_rows: 0
"""
    config = load(write(tmp_path, text))
    order = [stage.name for stage in config.stages]
    assert order == ["audio", "egemaps", "timeline", "faces", "onet"]
    assert config.timeline.name == "timeline"
    assert [stage.name for stage in config.features] == ["egemaps", "onet"]
    rate_hz, peak_dbfs = config.timeline.params.rate_hz, config.stage("audio").params.peak_dbfs
    assert (rate_hz, type(rate_hz), peak_dbfs, type(peak_dbfs)) == (30.0, float, -3.0, float)
    assert type(config.stage("faces").params.min_prob) is float
    assert config.stage("faces").params.min_face_px == 60
    assert config.stage("faces").params.size_px == 112  # a default, filled in
    store = config.store
    assert (store.rows, store.dtype, store.tail, store.tolerance_rows) == ("timeline", "float32", "trim", 0)
    assert (store.align_of("onet"), store.align_of("egemaps")) == ("mean", "linear")
    assert (store.fill_of("onet"), store.fill_of("egemaps")) == ("nearest", "none")


@pytest.mark.parametrize(
    ("written", "expected"), [("", None), (", track: null", None), (", track: ", None), (", track: 3", 3), (", track: 0", 0)]
)
def test_a_parameter_may_be_a_number_or_nothing(tmp_path: Path, written: str, expected: int | None) -> None:
    params = load(write(tmp_path, HEAD + f"  faces: {{use: mtcnn{written}}}\n")).stage("faces").params
    assert params.track == expected
    assert type(params.track) is type(expected)


def test_words_and_whole_numbers_become_what_a_parameter_is(tmp_path: Path) -> None:
    text = "  faces: {use: mtcnn, mode: exact, template: box, margin: 1, coding: raw, search_s: 0, redetect_s: 1, precision: bfloat16}\n"
    stage = load(write(tmp_path, HEAD + text)).stage("faces")
    params = stage.params
    assert (params.mode, params.template, params.coding, stage.precision) == ("exact", "box", "raw", "bfloat16")
    assert [(value, type(value)) for value in (params.margin, params.search_s, params.redetect_s)] == [(1, float), (0, float), (1, float)]


def test_the_defaults_of_a_store_are_those_of_the_design(tmp_path: Path) -> None:
    assert load(write(tmp_path, HEAD)).store == StoreSpec()
    spec = StoreSpec()
    assert (spec.rows, spec.dtype, spec.tail, spec.align_of("x"), spec.fill_of("x")) == ("labels", "float16", "repeat", "nearest", "none")


def test_inputs_that_are_clear_need_no_name(tmp_path: Path) -> None:
    config = load(write(tmp_path, f"{HEAD}  faces: {{use: mtcnn}}\n  onet: {{use: onet}}\n{SOUND}  mfcc: {{use: mfcc39}}\n"))
    assert {stage.name: stage.inputs for stage in config.stages} == {
        "timeline": (),
        "faces": ("timeline",),
        "onet": ("faces",),
        "audio": (),
        "mfcc": ("audio",),
    }


def test_inputs_follow_the_order_in_which_the_extractor_reads(tmp_path: Path) -> None:
    functionals = "  functionals: {use: egemaps_functionals, from: [timeline, audio]}\n"
    stage = load(write(tmp_path, HEAD + SOUND + functionals)).stage("functionals")
    assert stage.extractor.reads(stage.params) == (Kind.WAVEFORM, Kind.TIMELINE)
    assert stage.inputs == ("audio", "timeline")


def test_features_may_be_chosen(tmp_path: Path) -> None:
    text = HEAD + FACES + "  onet: {use: onet}\n" + SOUND + "  mfcc: {use: mfcc39}\nstore: {features: [mfcc]}\n"
    assert [stage.name for stage in load(write(tmp_path, text)).features] == ["mfcc"]


def test_a_pictures_folder_lies_beside_the_stages_file(tmp_path: Path) -> None:
    stage = load(write(tmp_path, f"{HEAD}  crops: {{use: folder, root: organisers/cropped}}\n")).stage("crops")
    assert stage.root == (tmp_path / "organisers/cropped").resolve()


def test_an_unknown_stage_is_named_with_the_nearest(tmp_path: Path) -> None:
    config = load(write(tmp_path, HEAD + FACES))
    with pytest.raises(RequestError, match=r"^stages\.yaml: no stage 'face'; did you mean 'faces'\?$"):
        config.stage("face")
    with pytest.raises(RequestError, match=r"no stage 'zzz'; stages: timeline, faces$"):
        config.stage("zzz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "stages.yaml:1: a stages file is a mapping; start with 'version: 1' and 'stages:'"),
        ("- a\n", "stages.yaml:1: a stages file is a mapping"),
        ("stages:\n  timeline: {use: timeline}\n", "stages.yaml:1: version: must be 1, got None; write 'version: 1'"),
        ("stages:\n  timeline: {use: timeline}\nversion: 2\n", "stages.yaml:3: version: must be 1, got 2"),
        ("version: true\nstages:\n  timeline: {use: timeline}\n", "stages.yaml:1: version: must be 1, got True"),
        ("version: 1\n", "stages.yaml:1: stages: must map stage names to stages; write 'timeline: {use: timeline}' below it"),
        ("version: 1\nstages: {}\n", "stages.yaml:2: stages: must map stage names to stages"),
        ("version: 1\nstages: {}\nstore: {align: {arcface: linear}}\n", "stages.yaml:2: stages: must map stage names to stages"),
        ("version: 1\nstages:\n  audio: {use: waveform}\n", "stages.yaml:2: stages: there is no timeline; add 'timeline: {use: timeline}'"),
        ("version: 1\nstages:\n  a: {use: mtcnn\n  b: [}\n", "stages.yaml:4: is not YAML: "),
        ("version: 1\n---\nversion: 1\n", "stages.yaml:2: is not YAML: but found another document"),
        ("a: \x07\n", "stages.yaml: is not YAML: "),
        ("[" * 20_000, "stages.yaml: is nested too deeply"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(tmp_path: Path, text: str, expected: str) -> None:
    found = complaints(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"nothing\.yaml: cannot be read: No such file or directory; give a stages file with --stages"):
        load(tmp_path / "nothing.yaml")
    with pytest.raises(RequestError, match=r"cannot be read: Is a directory"):
        load(tmp_path)
    path = tmp_path / "stages.yaml"
    path.write_bytes(b"version: 1 # \xff\n")
    with pytest.raises(RequestError, match=r"stages\.yaml: is not text: .*0xff.*; save it as UTF-8"):
        load(path)
    path.write_text("#" * ((1 << 20) + 1))
    with pytest.raises(RequestError, match=r"stages\.yaml: too large for a stages file: over 1 MiB"):
        load(path)


def test_all_mistakes_are_reported_at_once_and_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """version: 2
stages:
  timeline: {use: timeline, rate_hz: -5}
  faces:
    use: mtcnn
    from: timelime
    min_fase_px: 40
    size_px: big
  faces: {use: mtcnn}
  onet: {use: onet, from: faces, precision: float16}
  arcface: {use: iresnet50, from: faces, sha256: 12}
  x: {use: x_y_z}
  a: {use: onet, from: [faces, b]}
  b: {use: onet, from: a}
  mfcc: {use: mfcc39}
stor: {}
store:
  rows: lines
  align: {default: linear, onnet: mean, x: mean}
"""
    assert complaints(tmp_path, text) == [
        "stages.yaml:1: version: must be 1, got 2; write 'version: 1'",
        "stages.yaml:3: stages.timeline.rate_hz: expected 'native' or a number of rows per second up to 1000, got -5.0; "
        "give a value in range",
        "stages.yaml:6: stages.faces.from: unknown stage 'timelime'; did you mean 'timeline'?",
        "stages.yaml:7: stages.faces.min_fase_px: unknown key; did you mean 'min_face_px'?",
        "stages.yaml:8: stages.faces.size_px: input should be a valid integer, got 'big'; give a whole number",
        "stages.yaml:9: stages.faces: given twice, first on line 4; keep one",
        "stages.yaml:10: stages.onet.precision: onet cannot run in 'float16'; known: float32",
        "stages.yaml:11: stages.arcface: needs 'weights: FILE'; its file comes from the model zoo of "
        "https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch",
        "stages.yaml:11: stages.arcface.sha256: must be 64 hexadecimal digits, small letters, in quotes; take it from sha256sum",
        f"stages.yaml:12: stages.x.use: unknown extractor 'x_y_z'; known: {', '.join(EXTRACTORS)}, timm:MODEL, hf:MODEL, hf_audio:MODEL",
        "stages.yaml:13: stages.a.from: a cycle: a -> b -> a; break it",
        "stages.yaml:16: stor: unknown key; did you mean 'store'?",
        "stages.yaml:18: store.rows: input should be 'labels' or 'timeline', got 'lines'; give labels | timeline",
        "stages.yaml:19: store.align.onnet: unknown stage 'onnet'; did you mean 'onet'?",
    ]


def test_missing_and_ambiguous_inputs_are_reported_beside_other_mistakes(tmp_path: Path) -> None:
    text = HEAD + "  f: {use: mtcnn}\n  g: {use: mtcnn, size_px: big}\n  o: {use: onet}\n  m: {use: mfcc39}\n"
    assert [line.split(";")[0] for line in complaints(tmp_path, text)] == [
        "stages.yaml:5: stages.g.size_px: input should be a valid integer, got 'big'",
        "stages.yaml:6: stages.o.from: reads one stage that yields faces: there are 2: f, g",
        "stages.yaml:7: stages.m.from: reads one stage that yields waveform: the file has none",
    ]


@pytest.mark.parametrize("broken", ["{use: mtcn}", "{from: timeline}", "{use: mtcnn, size_px: big}", "{use: mtcnn, from: 3}", "7"])
def test_a_stage_that_cannot_be_read_raises_no_doubts_about_others(tmp_path: Path, broken: str) -> None:
    others = "  o: {use: onet, from: f}\n  p: {use: onet}\nstore: {align: {f: mean, o: linear}, features: [o, p]}\n"
    found = complaints(tmp_path, f"{HEAD}  f: {broken}\n{others}")
    assert len(found) == 1, found
    assert found[0].startswith("stages.yaml:4: stages.f")


def test_of_a_stage_given_twice_the_first_is_meant(tmp_path: Path) -> None:
    found = complaints(tmp_path, HEAD + "  f: {from: timeline}\n  f: {use: mtcnn}\n")
    assert [line.split(";")[0] for line in found] == [
        "stages.yaml:4: stages.f: needs 'use: EXTRACTOR'",
        "stages.yaml:5: stages.f: given twice, first on line 4",
    ]


def test_an_unread_timeline_is_not_a_missing_one(tmp_path: Path) -> None:
    found = complaints(tmp_path, "version: 1\nstages:\n  timeline: {use: timelin}\n  f: {use: mtcnn}\n  o: {use: onet}\n")
    assert found == ["stages.yaml:3: stages.timeline.use: unknown extractor 'timelin'; did you mean 'timeline'?"]


def test_every_cycle_is_drawn(tmp_path: Path) -> None:
    text = HEAD + "  a: {use: onet, from: b}\n  b: {use: onet, from: a}\n  c: {use: onet, from: d}\n  d: {use: onet, from: c}\n"
    cycles = [line.partition("a cycle: ")[2] for line in complaints(tmp_path, text)]
    assert cycles == ["a -> b -> a; break it", "c -> d -> c; break it"]


def test_an_extractor_from_outside(tmp_path: Path, outside: str) -> None:
    text = f"{HEAD}{FACES}  onet: {{use: onet}}\n  fused: {{use: '{outside}:Fused', from: onet, scales: [1, 2.5], fast: true}}\n"
    config = load(write(tmp_path, text))
    stage = config.stage("fused")
    assert (stage.params.scales, stage.params.label, stage.params.fast) == ((1.0, 2.5), "x", True)
    assert (stage.inputs, stage.yields) == (("onet",), Kind.FEATURE)


def test_the_repositorys_own_file_is_valid_and_needs_no_weights() -> None:
    config = load(Path(__file__).parents[1] / "stages.yaml")
    assert all(stage.weights is None and not stage.extractor.needs_weights for stage in config.stages)
    assert config.features
