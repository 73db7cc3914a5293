"""The stages file: read whole, checked whole, every problem reported at once with its line."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from extractors.contract import Kind
from pipeline.document import Document
from pipeline.document import load as load_document
from pipeline.errors import Problem, RequestError
from pipeline.graph import Stage, in_order
from pipeline.nodes import read_stages
from pipeline.params import typed

SECTIONS = ("version", "stages", "store")
STORE_KEYS = ("rows", "dtype", "align", "fill", "tail", "tolerance_rows", "features")

Align = Literal["nearest", "linear", "previous", "mean"]
Fill = Literal["none", "nearest", "previous", "zero"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSpec:
    """How tracks become a store. `align` and `fill` map a feature (or "default") to its policy; `features` empty means all."""

    rows: Literal["labels", "timeline"] = "labels"
    dtype: Literal["float16", "float32"] = "float16"
    align: Mapping[str, Align] = field(default_factory=lambda: {"default": "nearest"})
    fill: Mapping[str, Fill] = field(default_factory=lambda: {"default": "none"})
    tail: Literal["repeat", "trim"] = "repeat"
    tolerance_rows: int = 2
    features: tuple[str, ...] = ()

    def align_of(self, feature: str) -> Align:
        return self.align.get(feature, self.align.get("default", "nearest"))

    def fill_of(self, feature: str) -> Fill:
        return self.fill.get(feature, self.fill.get("default", "none"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A valid stages file: its stages in an order in which they can run, and the store's spec."""

    path: Path
    stages: tuple[Stage, ...]
    store: StoreSpec

    def stage(self, name: str) -> Stage:
        """Raises RequestError for a name that the file does not have."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = [stage.name for stage in self.stages]
        near = get_close_matches(name, names, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"stages: {', '.join(names)}"
        raise RequestError(Problem(what=f"no stage {name!r}", where=self.path.name, why="", fix=fix))

    @property
    def timeline(self) -> Stage:
        return next(stage for stage in self.stages if stage.yields is Kind.TIMELINE)

    @property
    def features(self) -> tuple[Stage, ...]:
        """The stages whose tracks the store holds."""
        if self.store.features:
            return tuple(self.stage(name) for name in self.store.features)
        return tuple(stage for stage in self.stages if stage.yields is Kind.FEATURE)


def load(path: Path) -> Config:
    """Read and check a stages file. Raises RequestError listing every problem."""
    document = load_document(path)
    data = document.data
    if not isinstance(data, dict):
        document.report((), "a stages file is a mapping", "start with 'version: 1' and 'stages:'")
        raise RequestError(document.problems)
    for key in data:
        if key not in SECTIONS:
            document.report_unknown((key,), key, list(SECTIONS))
    if data.get("version") != 1 or isinstance(data.get("version"), bool):
        document.report(("version",), f"must be 1, got {data.get('version')!r}", "write 'version: 1'")
    nodes = data.get("stages")
    stages = read_stages(document, nodes)
    # A policy for a stage that is there but wrong is not a second mistake: the names are those written, not those understood.
    store = _read_store(document, data.get("store"), list(nodes) if isinstance(nodes, dict) and nodes else None)
    document.raise_problems()
    return Config(path=path, stages=in_order(stages), store=store)


def _read_store(document: Document, data: Any, stages: list[str] | None) -> StoreSpec:
    """stages: the names that features may have; None where they are not known, so that none of them is wrong."""
    if data is None:
        return StoreSpec()
    if not isinstance(data, dict):
        document.report(("store",), "must be a mapping", "write 'rows: labels' below it")
        return StoreSpec()
    hints = typing.get_type_hints(StoreSpec)
    values: dict[str, Any] = {}
    before = len(document.problems)
    for key, value in data.items():
        if key not in STORE_KEYS:
            document.report_unknown(("store", key), key, list(STORE_KEYS))
        elif key in ("align", "fill"):
            values[key] = _policies(document, key, value, Align if key == "align" else Fill, stages)
        else:
            values[key] = typed(document, ("store", key), hints[key], value)
    for feature in values.get("features") or ():
        if stages is not None and feature not in stages:
            document.report_unknown(("store", "features"), feature, stages, noun="stage")
    if isinstance(values.get("tolerance_rows"), int) and values["tolerance_rows"] < 0:
        document.report(("store", "tolerance_rows"), "must not be negative", "give 0 or more")
    return StoreSpec() if len(document.problems) > before else StoreSpec(**values)


def _policies(document: Document, key: str, value: Any, kinds: Any, stages: list[str] | None) -> dict[str, Any]:
    if not isinstance(value, dict):
        document.report(("store", key), "must map features to policies", f"write '{key}: {{default: {typing.get_args(kinds)[0]}}}'")
        return {}
    for name in value:
        if stages is not None and name != "default" and name not in stages:
            document.report_unknown(("store", key, name), name, ["default", *stages], noun="stage")
    return {name: typed(document, ("store", key, name), kinds, policy) for name, policy in value.items()}
