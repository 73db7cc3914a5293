"""The stages file: each kind of mistake by itself gives one line, with its place and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.config import load
from pipeline.errors import RequestError

HEAD = "version: 1\nstages:\n  timeline: {use: timeline}\n"

OUTSIDE = """
from dataclasses import dataclass
from extractors.contract import Kind

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

class Bare:
    name = "bare"

class Loose(Fused):
    Params = dict

class Rooted(Fused):
    root_holds = "films"

class Odd(Fused):
    yields = "smell"

class Fractional(Fused):
    version = 1.5
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An extractor's module outside the packages; its name."""
    (tmp_path / "outside_ext.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "outside_ext", raising=False)
    return "outside_ext"


# One mistake each, in one line below the head; all that is said of it, in order.
SINGLE = {
    "sound at another rate": (
        "  a: {use: waveform, rate_hz: 44100}\n  m: {use: mfcc39, from: a}",
        [":5: stages.m.from: mfcc39 is defined at 16000 Hz, and 'a' has 44100; read a waveform stage with rate_hz: 16000"],
    ),
    "unknown parameter": ("  f: {use: mtcnn, min_fase_px: 4}", [":4: stages.f.min_fase_px: unknown key; did you mean 'min_face_px'?"]),
    "unknown, nothing near": ("  f: {use: onet, colour: 4}", [":4: stages.f.colour: unknown key; known: use, from, weights,"]),
    "text for a number": (
        "  f: {use: mtcnn, min_face_px: forty}",
        [":4: stages.f.min_face_px: input should be a valid integer, got 'forty'; give a whole number"],
    ),
    "fraction for a whole number": (
        "  f: {use: mtcnn, size_px: 112.0}",
        [":4: stages.f.size_px: input should be a valid integer, got 112.0"],
    ),
    "text for a number or null": (
        "  f: {use: mtcnn, track: first}",
        [":4: stages.f.track: input should be a valid integer, got 'first'; give a whole number | null"],
    ),
    "a number out of range": (
        "  f: {use: mtcnn, track: -1}",
        [":4: stages.f.track: expected the id of a track, 0 or more, or null, got -1; give a value in range"],
    ),
    "no word of a choice": (
        "  f: {use: mtcnn, mode: quick}",
        [":4: stages.f.mode: input should be 'tracked' or 'exact', got 'quick'; give tracked | exact"],
    ),
    "parameters that contradict": (
        "  f: {use: mtcnn, margin: 0.2}",
        [":4: stages.f.margin: only 'template: box' has one; "],
    ),
    "truth for a number": ("  f: {use: mtcnn, size_px: true}", [":4: stages.f.size_px: input should be a valid integer, got True"]),
    "no such choice": ("  e: {use: egemaps_lld, feature_set: v3}", [":4: stages.e.feature_set: input should be 'eGeMAPSv02'", "got 'v3'"]),
    "too large for a float": (f"  a: {{use: waveform, peak_dbfs: 1{'0' * 400}}}", [":4: stages.a.peak_dbfs: input should be a finite"]),
    "second timeline": ("  t: {use: timeline, rate_hz: 30}", [":4: stages.t: a second timeline: a store has one row axis"]),
    "infinite": ("  a: {use: waveform, peak_dbfs: -.inf}", [":4: stages.a.peak_dbfs: not a finite number; write a finite one"]),
    "out of range": ("  a: {use: waveform, rate_hz: 15}", [":4: stages.a.rate_hz: expected a positive multiple of 100, got 15; give a"]),
    "unknown extractor": ("  f: {use: mtcn}", [":4: stages.f.use: unknown extractor 'mtcn'; did you mean 'mtcnn'?"]),
    "no use": ("  f: {from: timeline}", [":4: stages.f: needs 'use: EXTRACTOR'; known: timeline, waveform"]),
    "no mapping": ("  f: mtcnn", [":4: stages.f: needs 'use: EXTRACTOR'"]),
    "not a name": ("  Big-F: {use: mtcnn}", [":4: stages.Big-F: not a stage name; use small letters"]),
    "a name the store needs": ("  index: {use: mtcnn}", [":4: stages.index: not a stage name"]),
    "from is a number": ("  f: {use: mtcnn, from: 7}", [":4: stages.f.from: must be a stage or a list of stages; write 'from: faces'"]),
    "from is null": ("  f: {use: mtcnn, from: }", [":4: stages.f.from: must be a stage or a list of stages"]),
    "from nowhere": ("  f: {use: mtcnn, from: timelin}", [":4: stages.f.from: unknown stage 'timelin'; did you mean 'timeline'?"]),
    "from the wrong kind": (
        "  f: {use: mtcnn}\n  o: {use: onet, from: [f, timeline]}",
        [":5: stages.o.from: does not read 'timeline', which yields timeline; it reads faces"],
    ),
    "source stage with input": (
        "  t: {use: waveform, from: timeline}",
        [":4: stages.t.from: does not read 'timeline', which yields", "it reads the source itself"],
    ),
    "missing input": (
        "  o: {use: onet}",
        [":4: stages.o.from: reads one stage that yields faces: the file has none; name it with 'from: STAGE'"],
    ),
    "ambiguous input": (
        "  f: {use: mtcnn}\n  g: {use: mtcnn}\n  o: {use: onet}",
        [":6: stages.o.from: reads one stage that yields faces: there are 2: f, g; name it"],
    ),
    "two for one": (
        "  f: {use: mtcnn}\n  g: {use: mtcnn}\n  o: {use: onet, from: [f, g]}",
        [":6: stages.o.from: reads one stage that yields faces"],
    ),
    "weights missing": (
        "  f: {use: mtcnn}\n  v: {use: iresnet50}",
        [":5: stages.v: needs 'weights: FILE'; its file comes from the model zoo"],
    ),
    "weights with a folder": (
        "  f: {use: mtcnn}\n  v: {use: iresnet50, weights: a/b.pth}",
        [":5: stages.v.weights: must be a file name without folders"],
    ),
    "weights above": (
        "  f: {use: mtcnn}\n  v: {use: iresnet50, weights: ..}",
        [":5: stages.v.weights: must be a file name without folders"],
    ),
    "weights not wanted": ("  f: {use: mtcnn, weights: a.pt}", [":4: stages.f.weights: mtcnn takes no weight file; remove it"]),
    "sha256 not wanted": (f"  f: {{use: mtcnn, sha256: '{'a' * 64}'}}", [":4: stages.f.sha256: mtcnn takes no weight file; remove it"]),
    "sha256 short": (
        "  f: {use: mtcnn}\n  v: {use: iresnet50, weights: a.pth, sha256: abc}",
        [":5: stages.v.sha256: must be 64 hexadecimal digits, small letters, in quotes; take it from sha256sum"],
    ),
    "sha256 read as a number": (
        f"  f: {{use: mtcnn}}\n  v: {{use: iresnet50, weights: a.pth, sha256: {'1' * 64}}}",
        [":5: stages.v.sha256: must be 64"],
    ),
    "precision": ("  f: {use: waveform, precision: float16}", [":4: stages.f.precision: waveform cannot run in 'float16'; known: float32"]),
    "precision unheard of": ("  f: {use: mtcnn, precision: float8}", [":4: stages.f.precision: mtcnn cannot run in 'float8'"]),
    "root not wanted": ("  f: {use: mtcnn, root: here}", [":4: stages.f.root: mtcnn reads nothing beside the videos; remove it"]),
    "root missing": ("  f: {use: folder}", [":4: stages.f: needs 'root: DIR'; name the folder that holds NAME/00001.jpg"]),
    "root of tables empty": (
        "  u: {use: openface, root: ''}",
        [":4: stages.u.root: needs 'root: DIR'; name the folder that holds NAME.csv"],
    ),
    "root of tables is a number": ("  u: {use: openface, root: 5}", [":4: stages.u.root: needs 'root: DIR'"]),
    "root empty": ("  f: {use: folder, root: ''}", [":4: stages.f.root: needs 'root: DIR'"]),
    "outside, not there": (
        "  f: {use: 'no_such_package.x:Y'}",
        [":4: stages.f.use: extractor 'no_such_package.x:Y' cannot be imported: No module named"],
    ),
    "outside, no class": (
        "  f: {use: 'outside_ext:Missing'}",
        [":4: stages.f.use: extractor 'outside_ext:Missing' is not there: outside_ext has no 'Missing'"],
    ),
    "outside, no extractor": (
        "  f: {use: 'outside_ext:Bare'}",
        [":4: stages.f.use: outside_ext:Bare is not an extractor: it lacks version, Params,"],
    ),
    "outside, loose Params": (
        "  f: {use: 'outside_ext:Loose'}",
        ["is not an extractor: its Params is not a dataclass; see docs/adding-an-extractor.md"],
    ),
    "outside, odd kind": (
        "  f: {use: 'outside_ext:Odd'}",
        ["is not an extractor: it yields 'smell', not one of timeline, faces, waveform, feature"],
    ),
    "outside, odd version": ("  f: {use: 'outside_ext:Fractional'}", ["is not an extractor: its version is 1.5, not a whole number"]),
    "outside, odd root": (
        "  f: {use: 'outside_ext:Rooted'}",
        ["is not an extractor: its root_holds is 'films', not one of pictures, tables"],
    ),
    "thousands of hexadecimal digits": (
        f"  f: {{use: mtcnn, min_face_px: 0x{'f' * 5000}}}",
        [":4: stages.f.min_face_px: too large a number; write one of at most 4096 bits"],
    ),
    "thousands of digits": (f"  f: {{use: mtcnn, min_face_px: {'9' * 5000}}}", [":4: stages.f.min_face_px: not a plain value"]),
    "endless sexagesimal": (f"  f: {{use: mtcnn, min_face_px: 1{':1' * 400}.5}}", [":4: stages.f.min_face_px: not a plain value"]),
    "given twice": ("  f: {use: mtcnn}\n  f: {use: onet}", [":5: stages.f: given twice, first on line 4; keep one"]),
    "parameter given twice": (
        "  f:\n    use: mtcnn\n    size_px: 64\n    size_px: 65",
        [":7: stages.f.size_px: given twice, first on line 6"],
    ),
    "alias": ("  f: &f {use: mtcnn}\n  g: *f", [":5: stages.g: aliases are not supported; write the value out"]),
    "tag": (
        "  f: {use: !!python/name:os.system x}",
        [":4: stages.f.use: not a plain value: could not determine a constructor for the tag"],
    ),
    "tag that does not fit": ("  f: {use: mtcnn, size_px: !!bool maybe}", [":4: stages.f.size_px: not a plain value"]),
    "key is a list": ("  ? [a, b]\n  : {use: mtcnn}", [":2: stages: a key must be a plain word"]),
    "NUL": ('  f: {use: folder, root: "a\\0b"}', [":4: stages.f.root: holds a character that no file or terminal takes"]),
    "cycle": (
        "  a: {use: mtcnn, from: c}\n  b: {use: onet, from: a}\n  c: {use: onet, from: b}",
        [":4: stages.a.from: a cycle: a -> c -> b -> a; break it"],
    ),
    "cycle of one": ("  a: {use: mtcnn, from: a}", [":4: stages.a.from: a cycle: a -> a; break it"]),
    "cycle that nobody wrote": (
        "  a: {use: 'outside_ext:Fused'}\n  b: {use: 'outside_ext:Fused'}",
        [":4: stages.a.from: a cycle: a -> b -> a; break it"],
    ),
    "unknown section": ("shop: {}", [":4: shop: unknown key; known: version, stages, store"]),
    "store is no mapping": ("store: labels", [":4: store: must be a mapping; write 'rows: labels' below it"]),
    "unknown store key": ("store: {row: labels}", [":4: store.row: unknown key; did you mean 'rows'?"]),
    "unknown rows": (
        "store: {rows: lables}",
        [":4: store.rows: input should be 'labels' or 'timeline', got 'lables'; give labels | timeline"],
    ),
    "unknown policy": (
        "store: {align: {default: cubic}}",
        [":4: store.align.default: input should be 'nearest', 'linear', 'previous' or 'mean', got 'cubic'"],
    ),
    "policy for nobody": ("store:\n  fill: {timelin: zero}", [":5: store.fill.timelin: unknown stage 'timelin'; did you mean 'timeline'?"]),
    "policies are no mapping": ("store: {fill: zero}", [":4: store.fill: must map features to policies; write 'fill: {default: none}'"]),
    "feature of nobody": ("store: {features: [timelin]}", [":4: store.features: unknown stage 'timelin'; did you mean 'timeline'?"]),
    "features no list": ("store: {features: timeline}", [":4: store.features: input should be a valid", "give a list of text"]),
    "negative tolerance": ("store: {tolerance_rows: -1}", [":4: store.tolerance_rows: must not be negative; give 0 or more"]),
}


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("name", SINGLE)
def test_one_mistake_gives_one_line_that_says_what_where_and_how(tmp_path: Path, name: str) -> None:
    text, expected = SINGLE[name]
    path = tmp_path / "stages.yaml"
    path.write_text(f"{HEAD}{text}\n", encoding="utf-8")
    with pytest.raises(RequestError, match=r"stages\.yaml:\d") as caught:
        load(path)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) == 1, found
    for part in expected:
        assert part in found[0]
