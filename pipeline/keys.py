"""The one place where a track's identity is made: everything that decides its bits, and nothing else.

identity = {schema, domain, stage part, source digest, person, pictures' digest, keys of the inputs}; key = sha256 of its canonical
JSON. The stage part is the same for every trial, so its JSON is made once and a key costs microseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

SCHEMA = 1
DOMAIN = "affectpipe/track"


def canonical(value: Any) -> str:
    """Canonical JSON: sorted keys, no blanks, -0.0 as 0.0, tuples as lists. Raises TypeError for any other type, ValueError for NaN."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a key part must be finite, got {value}")
        return value + 0.0
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise TypeError(f"the names of key parts must be text, got {list(value)}")
        return {name: _plain(item) for name, item in value.items()}
    raise TypeError(f"a key part must be plain data, got {type(value).__name__}")


def params_part(params: Any) -> dict[str, Any]:
    """A Params record as plain data, defaults filled in."""
    return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}


def stage_part(
    *, extractor: str, version: int, params: Mapping[str, Any], precision: str, weights: str | None, decoder: str | None
) -> dict[str, Any]:
    """What every trial of a stage shares.

    weights: the file's sha256, or "hub:SOURCE@REVISION" of fetched ones; decoder: its name and version where the stage decodes.
    """
    return {
        "extractor": extractor,
        "version": version,
        "params": dict(params),
        "precision": precision,
        "weights": weights,
        "decoder": decoder,
    }


def identity(stage: Mapping[str, Any], *, source: str, person: str | None, pictures: str | None, inputs: Sequence[str]) -> dict[str, Any]:
    """The whole identity of one track. source and pictures are digests; inputs are keys, in the order in which the stage reads them."""
    return {
        "schema": SCHEMA,
        "domain": DOMAIN,
        "stage": dict(stage),
        "source": source,
        "person": person,
        "pictures": pictures,
        "inputs": list(inputs),
    }


def key_of(identity_: Mapping[str, Any]) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(canonical(identity_).encode()).hexdigest()


def finding_part(stage: Mapping[str, Any], choices: Collection[str]) -> dict[str, Any]:
    """The stage part of a faces stage without the parameters that only choose among the faces that were found."""
    return {**stage, "params": {name: value for name, value in stage["params"].items() if name not in choices}}


def finding(identity_: Mapping[str, Any], choices: Collection[str]) -> str:
    """Equal where two faces artifacts, of whatever person, have the same `found`: the key that the identity has without all choices."""
    return key_of({**identity_, "stage": finding_part(identity_["stage"], choices), "person": None})


class KeyMaker:
    """Makes the keys of one stage. Gives what `key_of(identity(...))` gives, without rendering the stage part again."""

    def __init__(self, stage: Mapping[str, Any]) -> None:
        self.stage = dict(stage)
        self._tail = f',"stage":{canonical(self.stage)}}}'
        self._head = f'{{"domain":{canonical(DOMAIN)},"inputs":['

    def key(self, *, source: str, person: str | None, pictures: str | None, inputs: Sequence[str]) -> str:
        """Digests, keys and persons are plain ASCII words, so they need no escaping."""
        joined = ",".join([f'"{key}"' for key in inputs])
        who = f'"{person}"' if person else "null"
        crops = f'"{pictures}"' if pictures else "null"
        text = f'{self._head}{joined}],"person":{who},"pictures":{crops},"schema":{SCHEMA},"source":"{source}"{self._tail}'
        return hashlib.sha256(text.encode()).hexdigest()


def differences(new: Mapping[str, Any], old: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted name -> (new, old) of every part in which two identities differ, compared as they are hashed; None where one has none."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*new, *old}):
        a, b = new.get(name), old.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found |= differences(a, b, f"{prefix}{name}.")
        elif name not in new or name not in old or canonical(a) != canonical(b):
            found[f"{prefix}{name}"] = (a, b)
    return found
