"""Values of the stages file against the types that they are to have: the one place that uses pydantic."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from pipeline.document import Document, Place


def read_params(document: Document, place: Place, params_type: Any, node: dict[str, Any], reserved: Sequence[str]) -> Any:
    """An extractor's Params from its node, typed and default-filled, or None after reporting what is wrong.

    reserved: the keys of a node that are no parameters.
    """
    hints = typing.get_type_hints(params_type)
    names = [field.name for field in dataclasses.fields(params_type)]
    before = len(document.problems)
    values: dict[str, Any] = {}
    for key, value in node.items():
        if key in reserved or (*place, key) in document.unread:
            continue
        if key not in names:
            document.report_unknown((*place, key), key, [*names, *reserved])
            continue
        values[key] = typed(document, (*place, key), hints[key], value)
    missing = [field.name for field in dataclasses.fields(params_type) if _is_required(field) and field.name not in values]
    for name in missing:
        if (*place, name) not in document.unread:
            document.report(place, f"lacks {name!r}", f"give {_spelled(hints[name])}")
    if missing or len(document.problems) > before:
        return None
    try:
        return params_type(**values)
    except (ValueError, TypeError) as error:
        name, _, rest = str(error).partition(": ")
        document.report((*place, name) if name in names else place, rest if name in names else str(error), "give a value in range")
        return None


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def typed(document: Document, place: Place, hint: Any, value: Any) -> Any:
    """The value as the hinted type, or None after reporting that it is not."""
    try:
        # JSON's strict mode takes a list for a tuple and an int for a float, and nothing else for anything.
        return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False)).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        messages = dict.fromkeys(item["msg"][:1].lower() + item["msg"][1:] for item in error.errors())
        document.report(place, f"{' or '.join(messages)}, got {value!r}", f"give {_spelled(hint)}")
        return None


def _spelled(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " | ".join(map(str, typing.get_args(hint)))
    if args := [arg for arg in typing.get_args(hint) if arg is not Ellipsis]:
        joined = " | ".join(map(_spelled, args))
        return f"a list of {joined}" if typing.get_origin(hint) is tuple else joined
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}.get(hint, str(hint))
