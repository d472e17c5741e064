"""The request asked for JSON and the answer is not it, or lacks what the schema requires.

This looks at the outermost level only: that the answer parses, is of the right type, and has the required keys with
values of the right type. It is a quick sign of a poor answer, not a schema validator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router_ml.schema import Answer, Request

__all__ = ["check", "missing_keys"]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def check(request: Request, answer: Answer) -> str | None:
    """Find answers that break the response format `json_object` or `json_schema`."""
    wanted = (request.response_format or {}).get("type")
    if wanted not in ("json_object", "json_schema") or answer.tool_calls:
        return None
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return "JSON was asked for and the answer does not parse"
    if wanted == "json_object":
        return None if isinstance(value, dict) else "a JSON object was asked for and the answer is another value"
    return _against(_schema(request.response_format or {}), value)


def missing_keys(schema: object, value: Mapping[str, Any]) -> list[str]:
    """Return the keys that a JSON schema requires at its outermost level and that `value` lacks."""
    required = schema.get("required") if isinstance(schema, Mapping) else None
    if not isinstance(required, list | tuple):
        return []
    return [key for key in required if isinstance(key, str) and key not in value]


def _schema(response_format: Mapping[str, Any]) -> Mapping[str, Any]:  # Any: JSON as the client sent it
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, Mapping) else None
    return schema if isinstance(schema, Mapping) else {}


def _against(schema: Mapping[str, Any], value: object) -> str | None:
    if not _is_of(value, schema.get("type")):
        return f"the answer is not of the type {_listed(schema['type'])} that the schema requires"
    if not isinstance(value, dict):
        return None
    missing = missing_keys(schema, value)
    if missing:
        return f"the answer lacks {', '.join(missing)}, which the schema requires"
    properties = schema.get("properties")
    for key, rule in properties.items() if isinstance(properties, Mapping) else ():
        if key in value and isinstance(rule, Mapping) and not _is_of(value[key], rule.get("type")):
            return f"'{key}' is not of the type {_listed(rule['type'])} that the schema requires"
    return None


def _is_of(value: object, wanted: object) -> bool:
    names = _names(wanted)
    if not names or not all(name in _TYPES for name in names):
        return True  # no type given, or one that this check does not know
    return any(_matches(value, name) for name in names)


def _matches(value: object, name: str) -> bool:
    if isinstance(value, bool):  # a bool is an int in Python and not in JSON
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _names(wanted: object) -> list[str]:
    given = wanted if isinstance(wanted, list | tuple) else [wanted]
    return [name for name in given if isinstance(name, str)]


def _listed(wanted: object) -> str:
    return " or ".join(_names(wanted))
