"""The `stages:` mapping of a stages file: first every node by itself, then the edges between them."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

from extractors.contract import PRECISIONS, ExtractorError, Kind, Resample
from extractors.hub import REVISION, Remote
from extractors.registry import DOORS, EXTRACTORS, behind_door
from extractors.registry import load as load_extractor
from pipeline.document import Document, Place
from pipeline.graph import Stage, find_cycle
from pipeline.params import read_params

STAGE_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")
OUTSIDE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
STAGE_KEYS = ("use", "from", "weights", "revision", "sha256", "precision", "root")
HUB = "hub"  # instead of a weight file's name
CONTRACT = ("name", "version", "Params", "yields", "reads", "decoder", "precisions", "needs_weights", "origin", "licence")
ROOT_FILES = {"pictures": "NAME/00001.jpg", "tables": "NAME.csv"}
FILE_NAMES = ("index",)  # names that a store uses for its own files


def read_stages(document: Document, data: Any) -> list[Stage]:
    """The stages, their inputs found. Every problem is reported once: what cannot be read raises no doubts about what can."""
    if not isinstance(data, dict) or not data:
        document.report(("stages",), "must map stage names to stages", "write 'timeline: {use: timeline}' below it")
        return []
    nodes = _Nodes(document)
    for name, node in data.items():
        nodes.read(name, node)
    return _Wiring(document, nodes, list(data)).resolved()


class _Nodes:
    """Reads nodes one by one. kinds: what each yields whose extractor is known; edges: what each names; stages: the faultless."""

    def __init__(self, document: Document) -> None:
        self.document, self.report = document, document.report
        self.stages: dict[str, Stage] = {}
        self.kinds: dict[str, Kind] = {}
        self.edges: dict[str, tuple[str, ...]] = {}

    def read(self, name: str, node: Any) -> None:
        place: Place = ("stages", name)
        if not STAGE_NAME.fullmatch(name) or name in FILE_NAMES:
            self.report(place, "not a stage name", "use small letters, digits and _, starting with a letter, and not 'index'")
        if not isinstance(node, dict) or not isinstance(node.get("use"), str):
            self.report(self.document.at(place, "use"), "needs 'use: EXTRACTOR'", f"known: {', '.join(EXTRACTORS)}")
            return
        sources = node.get("from", [])
        sources = [sources] if isinstance(sources, str) else sources
        named = isinstance(sources, list) and all(isinstance(item, str) for item in sources)
        if named:
            self.edges[name] = tuple(sources)
        else:
            self.report((*place, "from"), "must be a stage or a list of stages", "write 'from: faces'")
        extractor = self._extractor(place, node["use"])
        if extractor is None:
            return
        self.kinds[name] = Kind(extractor.yields)
        params = read_params(self.document, place, extractor.Params, node, STAGE_KEYS)
        self._check_weights(place, node, extractor)
        remote = self._remote(place, node, extractor, params)
        self._check_root(place, node, extractor)
        if params is not None and named:
            self.stages[name] = self._stage(name, node, extractor, params, remote)

    def _stage(self, name: str, node: dict[str, Any], extractor: Any, params: Any, remote: Remote | None) -> Stage:
        named = ("sha256", "precision") if remote else ("weights", "sha256", "precision")
        text = {key: node[key] for key in named if isinstance(node.get(key), str)}
        root = node.get("root")
        folder = (self.document.path.parent / root).resolve() if isinstance(root, str) else None
        line = self.document.line(("stages", name, "weights"))
        given = {
            "use": node["use"],
            "extractor": extractor,
            "params": params,
            "inputs": self.edges[name],
            "root": folder,
            "remote": remote,
            **text,
        }
        return Stage(name=name, line=line, **given)

    def _extractor(self, place: Place, use: str) -> Any:
        if use not in EXTRACTORS and not behind_door(use) and not OUTSIDE.fullmatch(use):
            self.document.report_unknown((*place, "use"), use, [*EXTRACTORS, *(f"{door}:MODEL" for door in DOORS)], noun="extractor")
            return None
        try:
            extractor = load_extractor(use)
        except ExtractorError as error:
            self.report((*place, "use"), error.what, error.fix, why=error.why)
            return None
        if faults := _faults(extractor):
            self.report((*place, "use"), f"{use} is not an extractor", "see docs/adding-an-extractor.md", why=faults)
            return None
        return extractor

    def _check_weights(self, place: Place, node: dict[str, Any], extractor: Any) -> None:
        weights, sha256, precision = node.get("weights"), node.get("sha256"), node.get("precision", "float32")
        if extractor.needs_weights and not isinstance(weights, str):
            fetched = ", or write 'weights: hub'" if hasattr(extractor, "hub") else ""
            self.report(self.document.at(place, "weights"), "needs 'weights: FILE'", f"its file comes from {extractor.origin}{fetched}")
        if not extractor.needs_weights:
            for key in ("weights", "sha256", "revision"):
                if node.get(key) is not None:
                    self.report((*place, key), f"{extractor.name} takes no weight file", "remove it")
        elif sha256 is not None and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
            self.report((*place, "sha256"), "must be 64 hexadecimal digits, small letters, in quotes", "take it from sha256sum")
        if isinstance(weights, str) and (not weights or Path(weights).name != weights or weights in (".", "..")):
            self.report((*place, "weights"), "must be a file name without folders", "name the folder with --weights")
        if precision not in PRECISIONS or precision not in extractor.precisions:
            self.report((*place, "precision"), f"{extractor.name} cannot run in {precision!r}", f"known: {', '.join(extractor.precisions)}")

    def _remote(self, place: Place, node: dict[str, Any], extractor: Any, params: Any) -> Remote | None:
        """Where the stage's weights are fetched from; None where a file is named, or after reporting what is wrong."""
        revision, before = node.get("revision"), len(self.document.problems)
        if not extractor.needs_weights:
            return None
        if node.get("weights") != HUB:
            if revision is not None:
                self.report((*place, "revision"), "is of weights that are fetched", "remove it, or write 'weights: hub'")
            return None
        if not hasattr(extractor, "hub"):
            fix = f"name a file; it comes from {extractor.origin}"
            self.report((*place, "weights"), f"{extractor.name} cannot fetch its weights", fix)
            return None
        if node.get("sha256") is not None:
            self.report((*place, "sha256"), "is of a weight file; fetched weights are pinned by themselves", "remove it")
        source = extractor.hub(params) if params is not None else None
        if params is not None and source is None:
            why = "nothing is published for these parameters"
            self.report((*place, "weights"), f"{extractor.name} cannot fetch its weights", "name a file", why=why)
        if source is None:
            return None
        if source.pinned and revision is not None:
            self.report((*place, "revision"), f"{source.name} is pinned by its name", "remove it")
        elif not source.pinned and not (isinstance(revision, str) and REVISION.fullmatch(revision)):
            what = (
                "must be 40 hexadecimal digits, small letters, in quotes" if revision is not None else "needs 'revision: COMMIT' beside it"
            )
            at = (*place, "revision" if revision is not None else "weights")
            self.report(at, what, f"take it from https://huggingface.co/{source.name}/commits/main")
        return Remote(source=source, revision=revision) if len(self.document.problems) == before else None

    def _check_root(self, place: Place, node: dict[str, Any], extractor: Any) -> None:
        holds = getattr(extractor, "root_holds", None)
        if holds is None:
            if "root" in node:
                self.report((*place, "root"), f"{extractor.name} reads nothing beside the videos", "remove it")
        elif ("root" in node or extractor.decoder is None) and not (isinstance(node.get("root"), str) and node["root"]):
            self.report(self.document.at(place, "root"), "needs 'root: DIR'", f"name the folder that holds {ROOT_FILES[holds]}")


def _faults(extractor: Any) -> str:
    """Why an outside object is no extractor; empty where it is one."""
    if missing := [name for name in CONTRACT if not hasattr(extractor, name)]:
        return f"it lacks {', '.join(missing)}"
    if not (isinstance(extractor.Params, type) and dataclasses.is_dataclass(extractor.Params)):
        return "its Params is not a dataclass"
    if extractor.yields not in tuple(Kind):
        return f"it yields {extractor.yields!r}, not one of {', '.join(Kind)}"
    resample = getattr(extractor, "resample", "area")
    if resample not in get_args(Resample):
        return f"its resample is {resample!r}, not one of {', '.join(get_args(Resample))}"
    if getattr(extractor, "choices", ()) and not (extractor.yields is Kind.FACES and callable(getattr(extractor, "choose", None))):
        return "it has choices, but yields no faces or has no choose(...)"
    if getattr(extractor, "root_holds", None) not in (None, *ROOT_FILES):
        return f"its root_holds is {extractor.root_holds!r}, not one of {', '.join(ROOT_FILES)}"
    return "" if type(extractor.version) is int else f"its version is {extractor.version!r}, not a whole number"


class _Wiring:
    """The edges between nodes. names: of all nodes, also of those that could not be read."""

    def __init__(self, document: Document, nodes: _Nodes, names: list[str]) -> None:
        self.document, self.nodes, self.names = document, nodes, names

    def resolved(self) -> list[Stage]:
        for name, inputs in self.nodes.edges.items():
            for other in inputs:
                if other not in self.names:
                    self.document.report_unknown(("stages", name, "from"), other, self.names, noun="stage")
        in_cycles = self._report_cycles(self.nodes.edges)
        resolved = [self._with_inputs(stage) for stage in self.nodes.stages.values() if stage.name not in in_cycles]
        if not in_cycles:  # inputs that no one named may close a cycle too
            self._report_cycles({stage.name: stage.inputs for stage in resolved})
        all_known = len(self.nodes.kinds) == len(self.names)
        timelines = [name for name, kind in self.nodes.kinds.items() if kind is Kind.TIMELINE]
        if all_known and not timelines:
            self.document.report(("stages",), "there is no timeline", "add 'timeline: {use: timeline}'")
        for name in timelines[1:]:
            why = f"a store has one row axis, and {timelines[0]!r} gives it"
            self.document.report(("stages", name), "a second timeline", "keep one, or write a stages file for each", why=why)
        for stage in resolved:
            self._report_rates(stage)
        return resolved

    def _report_rates(self, stage: Stage) -> None:
        """An extractor that is defined at one rate of the sound, and reads a stage of another."""
        hears_hz = getattr(stage.extractor, "hears_hz", None)
        for name in stage.inputs:
            rate_hz = getattr(getattr(self.nodes.stages.get(name), "params", None), "rate_hz", hears_hz)
            if hears_hz and self.nodes.kinds[name] is Kind.WAVEFORM and rate_hz != hears_hz:
                what = f"{stage.extractor.name} is defined at {hears_hz} Hz, and {name!r} has {rate_hz}"
                self.document.report(("stages", stage.name, "from"), what, f"read a waveform stage with rate_hz: {hears_hz}")

    def _report_cycles(self, edges: dict[str, tuple[str, ...]]) -> set[str]:
        """Every cycle, one at a time. Returns the names in them."""
        left, found = dict(edges), set[str]()
        while cycle := find_cycle(left):
            self.document.report(("stages", cycle[0], "from"), f"a cycle: {' -> '.join(cycle)}", "break it")
            found.update(cycle)
            left = {name: inputs for name, inputs in left.items() if name not in found}
        return found

    def _with_inputs(self, stage: Stage) -> Stage:
        """Match the stages it names, and where the choice is clear those it does not name, to the kinds that its extractor reads."""
        place: Place = ("stages", stage.name, "from")
        kinds = self.nodes.kinds
        given = [name for name in stage.inputs if name in kinds]
        reads = stage.extractor.reads(stage.params)
        inputs: list[str] = []
        for kind in reads:
            named = [name for name in given if kinds[name] == kind]
            others = [name for name in kinds if kinds[name] == kind and name != stage.name]
            choices = named or others
            # An input that could not be read may be the one that is looked for here.
            in_doubt = not named and (len(given) < len(stage.inputs) or (not others and len(kinds) < len(self.names)))
            if len(choices) != 1 and not in_doubt:
                why = f"there are {len(choices)}: {', '.join(choices)}" if choices else "the file has none"
                self.document.report(place, f"reads one stage that yields {kind}", "name it with 'from: STAGE'", why=why)
            inputs.extend(choices[:1])
        for name in given:
            if kinds[name] not in reads:
                fix = f"it reads {', '.join(reads) or 'the source itself'}"
                self.document.report(place, f"does not read {name!r}, which yields {kinds[name]}", fix)
        return dataclasses.replace(stage, inputs=tuple(inputs))
