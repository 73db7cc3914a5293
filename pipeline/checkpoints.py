"""`weights`: the published checkpoints, which of them are here, and whether a file fits an extractor, or which it fits instead."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from extractors.checkpoints import CHECKPOINTS, Checkpoint
from extractors.contract import ExtractorError, Runtime
from extractors.registry import EXTRACTORS, load
from extractors.weights import FOLDER_FILES, Content, Fit, compare, facts, find, read_content, tensor_file
from pipeline.document import Document
from pipeline.errors import Problem, RequestError
from pipeline.memo import StatMemo
from pipeline.params import read_params
from pipeline.sources import digest_of

SHOWN = 4  # of a list of tensors, how many a line names


def catalogue(folders: Sequence[Path], memo: StatMemo) -> list[dict[str, Any]]:
    """Per published checkpoint what is known of it, `path` (None where no folder has it) and `state`.

    state: "missing"; "found", of a file where its sha256 begins as published, or nothing is published and it fits; "found, not checked", of
    a folder with a configuration and tensors; else what is wrong.
    """
    rows = []
    for known in CHECKPOINTS:
        path = find(known.file, folders)
        rows.append(dataclasses.asdict(known) | {"path": path, "state": "missing" if path is None else _state(known, path, memo)})
    return rows


def _state(known: Checkpoint, path: Path, memo: StatMemo) -> str:
    try:
        if known.sha256_prefix:
            digest = digest_of(path, memo)
            return "found" if digest.startswith(known.sha256_prefix) else f"another file: its sha256 begins {digest[:8]}"
        if path.is_dir():  # to build a large model for a list would take too long: `weights check` does
            tensor_file(path)
            return "found, not checked" if facts(path, FOLDER_FILES[0]) else f"does not fit: its {FOLDER_FILES[0]} says nothing"
        extractor = load(known.extractor)
        why = examine(path, extractor, extractor.Params(**known.params)).why
    except (ExtractorError, OSError) as error:
        why = str(error)
    return f"does not fit: {why}" if why else "found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of a file or folder for an extractor. fit: how its tensors compare, None where they are not for us to compare.

    why: what is wrong, empty where it fits. others: of the registry's extractors those that it fits instead, with the parameters to set.
    """

    why: str
    fit: Fit | None = None
    others: tuple[tuple[str, dict[str, Any]], ...] = field(default=(), hash=False)


def check(path: Path, use: str, settings: Sequence[str]) -> Checked:
    """Whether the file or folder fits the extractor with these "name=value" settings. Raises RequestError for a wrong request."""
    extractor = _extractor(use)
    params = _params(extractor, settings)
    if not path.exists():
        raise RequestError(Problem(what="no such file or folder", where=str(path), why="", fix="name the weight file"))
    checked = examine(path, extractor, params)
    return dataclasses.replace(checked, others=tuple(_others(path, use))) if checked.why and path.is_file() else checked


def examine(path: Path, extractor: Any, params: Any) -> Checked:
    """A file's tensors against the extractor's network, on no device.

    What only the extractor can judge, it is made of, on the CPU: a folder, and a file where parameters are set, since one may ask for a
    part whose shape the file decides, as a head with so many classes.
    """
    try:
        if path.is_dir() or not _compares(extractor):
            extractor(params, Runtime(weights=path))
            return Checked(why="")
        fit = _fit(read_content(path, extractor.layout.classes), extractor, params)
    except ExtractorError as error:
        return Checked(why=str(error))
    if params == extractor.Params():
        return Checked(why=fit.why, fit=fit)
    try:
        extractor(params, Runtime(weights=path))
    except ExtractorError as error:
        return Checked(why=fit.why or str(error), fit=fit)
    return Checked(why="", fit=dataclasses.replace(fit, missing=(), unexpected=(), unlike=()))


def _compares(extractor: Any) -> bool:
    return hasattr(extractor, "network") and hasattr(extractor, "layout")


def _fit(content: Content, extractor: Any, params: Any) -> Fit:
    import torch

    with torch.device("meta"):
        network = extractor.network(params)
    return compare(network, content, extractor.layout)[0]


def _others(path: Path, use: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The extractors of the registry that the file fits instead, each with the first of its choices of parameters for which it does."""
    contents: dict[tuple[str, ...], Content | None] = {}
    for name in EXTRACTORS:
        try:
            extractor = load(name)
        except ExtractorError:  # a library that is not installed: it cannot be told
            continue
        if not extractor.needs_weights or not _compares(extractor):
            continue
        classes = extractor.layout.classes
        if classes not in contents:
            try:
                contents[classes] = read_content(path, classes)
            except ExtractorError:
                contents[classes] = None
        content = contents[classes]
        if content is not None:
            found = next((given for given in _choices(extractor.Params) if _may_fit(content, extractor, given)), None)
            if found is not None and (name != use or found):
                yield name, found


def _may_fit(content: Content, extractor: Any, given: dict[str, Any]) -> bool:
    try:
        return not _fit(content, extractor, extractor.Params(**given)).why
    except (ImportError, ValueError):  # a library that is not installed; a choice that needs another beside it
        return False


def _choices(params_type: Any) -> Iterator[dict[str, Any]]:
    """The defaults, and then every other value of each parameter that has a list of them."""
    yield {}
    hints = typing.get_type_hints(params_type)
    for one in dataclasses.fields(params_type):
        if typing.get_origin(hints[one.name]) is Literal:
            yield from ({one.name: value} for value in typing.get_args(hints[one.name]) if value != one.default)


def _extractor(use: str) -> Any:
    if use not in EXTRACTORS and ":" not in use:
        document = Document(path=Path("--for"))
        document.report_unknown((), use, list(EXTRACTORS), noun="extractor")
        raise RequestError([dataclasses.replace(problem, where="--for") for problem in document.problems])
    try:
        extractor = load(use)
    except ExtractorError as error:
        raise RequestError(Problem(what=error.what, where="--for", why=error.why, fix=error.fix)) from error
    if not getattr(extractor, "needs_weights", False):
        raise RequestError(Problem(what=f"{use} takes no weight file", where="--for", why="", fix="name one that does"))
    return extractor


def _params(extractor: Any, settings: Sequence[str]) -> Any:
    """The extractor's parameters, of "name=value" with values as a stages file has them."""
    node: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        try:
            node[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            equals = ""
        if not equals:
            raise RequestError(Problem(what=f"{setting!r} is no setting", where="--set", why="", fix="write NAME=VALUE"))
    document = Document(path=Path("--set"))
    params = read_params(document, (), extractor.Params, node, ())
    if document.problems:
        raise RequestError([dataclasses.replace(problem, where="--set") for problem in document.problems])
    return params


def layout_of(fit: Fit) -> list[str]:
    """How the file was read, one thing a line."""
    said = [f"pickled module: {fit.pickled}"] if fit.pickled else []
    said += [f"under the key {fit.wrapper!r}"] if fit.wrapper else []
    said += [f"prefix taken off: {''.join(fit.prefixes)}"] if fit.prefixes else []
    said += ["names or shapes converted to the network's"] if fit.converted else []
    return said + ([f"{len(fit.dropped)} tensors not used: {listed(fit.dropped)}"] if fit.dropped else [])


def listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
