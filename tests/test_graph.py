"""Order, needs and cycles of stages, against what a topological order is by definition."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extractors.contract import Kind
from pipeline.graph import Stage, find_cycle, in_order, with_needed

unhurried = settings(deadline=None)  # a busy machine is no failure
NAMES = "abcdefgh"
any_edges = st.dictionaries(st.sampled_from(NAMES), st.lists(st.sampled_from(NAMES), max_size=4, unique=True))


class Yielding:
    yields = "faces"


def stage(name: str, *inputs: str) -> Stage:
    return Stage(name=name, use="x", extractor=Yielding, params=None, inputs=inputs)


@st.composite
def acyclic(draw: Any) -> list[Stage]:
    """Stages in any order, each reading some that come before it in the alphabet."""
    stages = [stage(name, *draw(st.lists(st.sampled_from(NAMES[:i]), unique=True)) if i else ()) for i, name in enumerate(NAMES)]
    return list(draw(st.permutations(stages)))


def test_a_stage_yields_a_kind() -> None:
    assert stage("a").yields is Kind.FACES


@pytest.mark.parametrize(
    ("edges", "path"),
    [
        ({}, ()),
        ({"a": ["b"], "b": []}, ()),
        ({"a": ["a"]}, ("a", "a")),
        ({"a": ["b"], "b": ["c"], "c": ["a"]}, ("a", "b", "c", "a")),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ("b", "c", "b")),  # what only leads to the cycle is not drawn
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, ()),  # two ways to one stage are no cycle
        ({"a": ["elsewhere"]}, ()),
    ],
)
def test_a_cycle_is_drawn_as_a_path(edges: dict[str, list[str]], path: tuple[str, ...]) -> None:
    assert find_cycle(edges) == path


@unhurried
@given(any_edges)
def test_a_cycle_is_found_where_the_standard_library_finds_one(edges: dict[str, list[str]]) -> None:
    path = find_cycle(edges)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError:
        assert len(path) >= 2
        assert path[0] == path[-1]
        assert len(set(path[:-1])) == len(path) - 1
        assert all(there in edges[here] for here, there in pairwise(path))
    else:
        assert path == ()


def test_a_long_chain_is_followed() -> None:
    edges = {str(i): [str(i + 1)] for i in range(5000)}
    assert find_cycle(edges) == ()
    assert len(find_cycle(edges | {"5000": ["0"]})) == 5002


@unhurried
@given(acyclic())
def test_order_puts_inputs_first_and_keeps_the_rest_as_written(stages: list[Stage]) -> None:
    ordered = in_order(stages)
    place = {one.name: i for i, one in enumerate(ordered)}
    assert sorted(place) == sorted(one.name for one in stages)
    assert all(place[name] < place[one.name] for one in ordered for name in one.inputs)
    if all(not one.inputs for one in stages):
        assert list(ordered) == stages


def test_order_changes_nothing_that_is_in_order() -> None:
    stages = [stage("t"), stage("a"), stage("f", "t"), stage("x", "f", "t")]
    assert list(in_order(stages)) == stages


@unhurried
@given(acyclic(), st.sets(st.sampled_from(NAMES)))
def test_what_is_needed_is_closed_and_no_larger_than_it_must_be(stages: list[Stage], names: set[str]) -> None:
    inputs = {one.name: set(one.inputs) for one in stages}
    expected = set(names)
    while (larger := expected | {other for name in expected for other in inputs[name]}) != expected:
        expected = larger
    assert with_needed(stages, names) == expected
