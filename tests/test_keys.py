"""Keys: pinned by a golden file, the same by both ways of making them, and different wherever a track's bits could be."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.registry import EXTRACTORS, load
from pipeline.config import load as load_config
from pipeline.keys import KeyMaker, canonical, differences, finding, identity, key_of, params_part, stage_part

unhurried = settings(deadline=None)  # a busy machine is no failure
GOLDEN = Path(__file__).parent / "golden" / "keys.json"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def golden_identities() -> dict[str, dict[str, Any]]:
    """Of every extractor with its default parameters, and of a made-up one with every type that a parameter can have."""
    made: dict[str, dict[str, Any]] = {}
    for use in EXTRACTORS:
        extractor = load(use)
        params = extractor.Params()
        part = stage_part(
            extractor=extractor.name,
            version=extractor.version,
            params=params_part(params),
            precision="float32",
            weights=sha256(f"the weights of {use}") if extractor.needs_weights else None,
            decoder=f"{extractor.decoder} 1.2.3" if extractor.decoder else None,
        )
        inputs = [sha256(f"input {i} of {use}") for i in range(len(extractor.reads(params)))]
        person, pictures = ("main" if use == "mtcnn" else None), (sha256("the pictures") if use == "folder" else None)
        made[use] = identity(part, source=sha256("a video"), person=person, pictures=pictures, inputs=inputs)
    odd = {"zeta": -0.0, "alpha": [1, 2.5, None], "text": 'ü "quoted" \\ \n', "nested": {"b": True, "a": 1e-7}}
    part = stage_part(extractor="made_up", version=1, params=odd, precision="bfloat16", weights=None, decoder=None)
    made["every_json_type"] = identity(part, source=sha256("a video"), person="left", pictures=None, inputs=[sha256("b"), sha256("a")])
    return made


def test_keys_are_those_of_the_golden_file() -> None:
    """If this fails, every cache of every user becomes stale: raise the extractor's version or SCHEMA, then run this file as a script."""
    golden = json.loads(GOLDEN.read_text())
    made = golden_identities()
    assert made.keys() == golden.keys()
    for name, entry in golden.items():
        assert differences(made[name], entry["identity"]) == {}, name
        assert key_of(made[name]) == key_of(entry["identity"]) == entry["key"], name


def test_a_key_is_the_sha256_of_sorted_json_without_blanks() -> None:
    # Spelled out by hand, so that the golden file is not merely what the code happened to give.
    part = stage_part(extractor="e", version=2, params={"b": 0.5, "a": (1, "ü")}, precision="float32", weights=None, decoder="pyav 1")
    made = identity(part, source="s", person="left", pictures=None, inputs=["k"])
    text = (
        '{"domain":"affectpipe/track","inputs":["k"],"person":"left","pictures":null,"schema":1,"source":"s","stage":'
        '{"decoder":"pyav 1","extractor":"e","params":{"a":[1,"\\u00fc"],"b":0.5},"precision":"float32","version":2,"weights":null}}'
    )
    assert key_of(made) == sha256(text)


def test_a_finding_is_of_everything_but_the_choice_and_the_person() -> None:
    made = golden_identities()["mtcnn"]
    choices = load("mtcnn").choices
    same = finding(made, choices)
    assert set(choices) < set(made["stage"]["params"])
    for name, value in made["stage"]["params"].items():
        other = {**made, "stage": {**made["stage"], "params": {**made["stage"]["params"], name: f"not {value}"}}}
        assert (finding(other, choices) == same) == (name in choices), name
    assert finding({**made, "person": "left"}, choices) == same
    for name, value in {"source": sha256("another"), "inputs": [sha256("another")], "schema": 2}.items():
        assert finding({**made, name: value}, choices) != same
    for name in ("extractor", "version", "precision", "weights", "decoder"):
        assert finding({**made, "stage": {**made["stage"], name: "another"}}, choices) != same, name


words = st.text("0123456789abcdef", min_size=1, max_size=64)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@unhurried
@given(
    params=st.dictionaries(st.text(), plain, max_size=4),
    extractor=st.text(),
    weights=st.none() | words,
    source=words,
    person=st.none() | st.sampled_from(["main", "left", "right"]),
    pictures=st.none() | words,
    inputs=st.lists(words, max_size=3),
)
def test_the_fast_way_gives_the_same_key(
    params: dict[str, Any],
    extractor: str,
    weights: str | None,
    source: str,
    person: str | None,
    pictures: str | None,
    inputs: list[str],
) -> None:
    part = stage_part(extractor=extractor, version=1, params=params, precision="float32", weights=weights, decoder=None)
    slow = key_of(identity(part, source=source, person=person, pictures=pictures, inputs=inputs))
    assert KeyMaker(part).key(source=source, person=person, pictures=pictures, inputs=inputs) == slow


@unhurried
@given(plain)
def test_canonical_json_reads_back_as_what_it_was(value: Any) -> None:
    assert json.loads(canonical(value)) == value


PART: dict[str, Any] = {
    "extractor": "e",
    "version": 1,
    "params": {"a": 1, "b": 2.0},
    "precision": "float32",
    "weights": "aa",
    "decoder": "pyav 1",
}
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("extractor", {"extractor": "f"}),
    ("version", {"version": 2}),
    ("params value", {"params": {"a": 1, "b": 2.5}}),
    ("params type", {"params": {"a": True, "b": 2.0}}),
    ("params name", {"params": {"a": 1, "c": 2.0}}),
    ("params more", {"params": {"a": 1, "b": 2.0, "c": None}}),
    ("precision", {"precision": "float16"}),
    ("weights", {"weights": "ab"}),
    ("no weights", {"weights": None}),
    ("decoder", {"decoder": "pyav 2"}),
]
WHO: dict[str, Any] = {"source": "s", "person": "main", "pictures": "p", "inputs": ["i", "j"]}
WHO_CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("source", {"source": "t"}),
    ("person", {"person": "left"}),
    ("nobody", {"person": None}),
    ("pictures", {"pictures": "q"}),
    ("input", {"inputs": ["i", "k"]}),
    ("order of inputs", {"inputs": ["j", "i"]}),
    ("fewer inputs", {"inputs": ["i"]}),
]


def test_every_part_changes_the_key() -> None:
    identities = [identity(stage_part(**PART), **WHO)]
    identities += [identity(stage_part(**{**PART, **change}), **WHO) for _, change in CHANGES]
    identities += [identity(stage_part(**PART), **{**WHO, **change}) for _, change in WHO_CHANGES]
    keys = {key_of(one) for one in identities}
    assert len(keys) == len(identities)
    assert {KeyMaker(one["stage"]).key(**{name: one[name] for name in WHO}) for one in identities} == keys


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"version": 2}, {"stage.version": (2, 1)}),
        ({"params": {"a": True, "b": 2.0}}, {"stage.params.a": (True, 1)}),  # equal to Python, not to the key
        ({"params": {"a": 1, "b": 2}}, {"stage.params.b": (2, 2.0)}),
        ({"params": {"a": 1, "b": 2.0, "c": None}}, {"stage.params.c": (None, None)}),  # a new parameter, whatever its value
    ],
)
def test_a_difference_is_named_exactly_where_the_keys_differ(change: dict[str, Any], part: dict[str, Any]) -> None:
    old, new = (identity(stage_part(**{**PART, **more}), **WHO) for more in ({}, change))
    assert differences(new, old) == part
    assert key_of(new) != key_of(old)


def test_an_identity_read_back_from_json_does_not_differ() -> None:
    made = identity(stage_part(**{**PART, "params": {"a": (1, (2.0,)), "z": -0.0}}), **WHO)
    assert differences(made, json.loads(canonical(made))) == {}


def test_what_means_the_same_has_the_same_key() -> None:
    assert canonical({"a": -0.0}) == canonical({"a": 0.0}) == '{"a":0.0}'
    assert canonical((1, (2,))) == canonical([1, [2]])
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})


def test_thirty_and_thirty_point_nought_are_one_key_through_the_stages_file(tmp_path: Path) -> None:
    path, found = tmp_path / "stages.yaml", set()
    for rate in ("30", "30.0", "3.0e+1"):
        path.write_text(f"version: 1\nstages:\n  timeline: {{use: timeline, rate_hz: {rate}}}\n")
        found.add(canonical(params_part(load_config(path).timeline.params)))
    assert found == {'{"rate_hz":30.0}'}


@pytest.mark.parametrize("value", [{1}, b"x", Path("x"), np.float32(1), np.int64(1), np.bool_(True), np.zeros(2), object(), 1j])
def test_an_unknown_type_is_never_turned_into_text(value: Any) -> None:
    with pytest.raises(TypeError, match=f"a key part must be plain data, got {type(value).__name__}"):
        canonical({"deep": [value]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_part_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="a key part must be finite, got"):
        canonical([value])


def test_names_of_parts_are_text() -> None:
    with pytest.raises(TypeError, match=r"the names of key parts must be text, got \[1\]"):
        canonical({1: "a"})


def test_parameters_are_filled_in() -> None:
    @dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
    class Params:
        hop: Literal["timeline", "native"] = "timeline"
        scales: tuple[float, ...] = (1.0, 2.0)

    assert canonical(params_part(Params(scales=(0.5,)))) == '{"hop":"timeline","scales":[0.5]}'


if __name__ == "__main__":
    entries = {name: {"identity": made, "key": key_of(made)} for name, made in golden_identities().items()}
    GOLDEN.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
