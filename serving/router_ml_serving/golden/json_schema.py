"""The part of JSON Schema that golden sets use, so that the service needs no validator; other keywords are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from router_ml.errors import ConfigError

__all__ = ["check_schema", "conforms"]

Json: TypeAlias = Any  # any value of JSON

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_SHAPES: Mapping[str, type] = {
    "enum": list,
    "required": list,
    "properties": dict,
    "minItems": int,
    "maxItems": int,
    "minimum": float,
    "maximum": float,
}
_SAY_NOTHING = frozenset({"$schema", "$id", "title", "description", "default", "examples"})


def check_schema(schema: Json, where: str = "json_schema") -> None:
    """Refuse a schema that says more than is understood here: what is not looked at would seem to hold.

    Raises:
        ConfigError: Naming the keyword and its place.
    """
    if not isinstance(schema, dict):
        raise ConfigError(f"{where}: a schema is an object, got {type(schema).__name__}")
    for keyword, value in schema.items():
        if keyword not in _RULES and keyword not in _SAY_NOTHING:
            raise ConfigError(f"{where}.{keyword}: not understood; known: {', '.join(sorted(_RULES))}")
        shape = _SHAPES.get(keyword, object)
        if not isinstance(value, (int, float) if shape is float else shape):
            raise ConfigError(f"{where}.{keyword}: expected {shape.__name__}, got {type(value).__name__}")
        if keyword == "required" and not all(isinstance(name, str) for name in schema[keyword]):
            raise ConfigError(f"{where}.required: expected names")
        if keyword == "type" and not all(
            one in list(_TYPES) for one in (value if isinstance(value, list) else [value])
        ):
            raise ConfigError(f"{where}.type: expected one or several of {', '.join(_TYPES)}, got {value!r}")
    if schema.get("additionalProperties", True) not in (True, False):
        raise ConfigError(f"{where}.additionalProperties: expected true or false")
    for name, inner in _inner(schema):
        check_schema(inner, f"{where}.{name}")


def conforms(value: Json, schema: Mapping[str, Json]) -> bool:
    """Say whether a value keeps to a schema that `check_schema` lets pass."""
    return all(_RULES[keyword](value, wanted, schema) for keyword, wanted in schema.items() if keyword in _RULES)


def _inner(schema: Mapping[str, Json]) -> list[tuple[str, Json]]:
    properties = schema.get("properties", {})
    found = [(f"properties.{name}", inner) for name, inner in properties.items()] if properties else []
    return [*found, *([("items", schema["items"])] if "items" in schema else [])]


def _is_of(value: Json, name: str) -> bool:
    if isinstance(value, bool):  # a bool is an int in Python and not in JSON
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])


def _is_number(value: Json) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(value: Json, wanted: Json) -> bool:
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _no_others(value: Json, wanted: Json, schema: Mapping[str, Json]) -> bool:
    return bool(wanted) or not isinstance(value, dict) or value.keys() <= schema.get("properties", {}).keys()


def _properties(value: Json, wanted: Json, _: Mapping[str, Json]) -> bool:
    return not isinstance(value, dict) or all(
        conforms(value[key], inner) for key, inner in wanted.items() if key in value
    )


_RULES: Mapping[str, Callable[[Json, Json, Mapping[str, Json]], bool]] = {
    "type": lambda v, want, _: any(_is_of(v, name) for name in (want if isinstance(want, list) else [want])),
    "enum": lambda v, want, _: any(_same(v, one) for one in want),
    "const": lambda v, want, _: _same(v, want),
    "required": lambda v, want, _: not isinstance(v, dict) or {*want} <= v.keys(),
    "properties": _properties,
    "additionalProperties": _no_others,
    "items": lambda v, want, _: not isinstance(v, list) or all(conforms(one, want) for one in v),
    "minItems": lambda v, want, _: not isinstance(v, list) or len(v) >= want,
    "maxItems": lambda v, want, _: not isinstance(v, list) or len(v) <= want,
    "minimum": lambda v, want, _: not _is_number(v) or v >= want,
    "maximum": lambda v, want, _: not _is_number(v) or v <= want,
}
