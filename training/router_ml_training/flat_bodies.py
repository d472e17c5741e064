"""Stored interactions as flat columns: the items of all rows one after the other, beside how many each row has.

A few dozen rows at a time: their Python objects are then still in the processor's cache when they are taken apart, and
their memory is used again for the next ones. All rows of a page at once take half as long again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import astuple

from router_ml_training.frames import dump, message_row
from router_ml_training.stored_json import (
    Json,
    StoredAttempt,
    StoredInteraction,
    StoredRequest,
    StoredVerdict,
    is_simple,
    read_strictly,
)

__all__ = ["Columns", "read_flat"]

# By the path of a field of `INTERACTION_SCHEMA`, such as `attempts.tier`. A list's own path has the number of items in
# each row (or in each item of the list around it); the items of a list of texts are at `candidates.item`.
Columns: TypeAlias = dict[str, list[Any]]

_AT_ONCE = 64
# Columns that are fields of a record as they are.
_PLAIN = (
    "schema",
    "id",
    "ts",
    "session_id",
    "tenant",
    "feature",
    "use_case",
    "policy_version",
    "explored",
    "mode",
)
_LISTS_OF_ATTEMPTS = ("tool_calls", "verdicts")
_ABSENT = ("logprobs", "features")


def read_flat(bodies: Sequence[str]) -> tuple[Columns, list[int]]:
    """Return the bodies that are just as the service writes them as flat columns, and which they are.

    Args:
        bodies: Interactions as JSON.

    Returns:
        Columns by path, without features and feedback, and the positions of their rows in `bodies`.
    """
    columns = {name: list(values) for name, values in _columns([]).items()}
    places: list[int] = []
    for start in range(0, len(bodies), _AT_ONCE):
        rows = [read_strictly(body) for body in bodies[start : start + _AT_ONCE]]
        places.extend(start + i for i, row in enumerate(rows) if row is not None)
        for name, values in _columns([row for row in rows if row is not None]).items():
            columns[name].extend(values)
    return columns, places


def _columns(rows: Sequence[StoredInteraction]) -> Mapping[str, Iterable[Any]]:
    said = _fields(rows, StoredInteraction)
    asked = _fields(said["request"], StoredRequest)
    tried = _fields(list(chain.from_iterable(said["attempts"])), StoredAttempt)
    judged = _fields(list(chain.from_iterable(tried["verdicts"])), StoredVerdict)
    plain = {name: values for name, values in tried.items() if name not in (*_LISTS_OF_ATTEMPTS, *_ABSENT)}
    return {
        **{name: said[name] for name in _PLAIN},
        "tags": [dump(tags) if tags else "{}" for tags in said["tags"]],
        "tools": [None if tools is None else dump(tools) for tools in asked["tools"]],
        "response_format": [None if shape is None else dump(shape) for shape in asked["response_format"]],
        "max_tokens": asked["max_tokens"],
        "messages": map(len, asked["messages"]),
        **_messages(list(chain.from_iterable(asked["messages"]))),
        "candidates": map(len, said["candidates"]),
        "candidates.item": chain.from_iterable(said["candidates"]),
        "propensity": map(len, said["propensity"]),
        "propensity.tier": chain.from_iterable(said["propensity"]),
        "propensity.p": chain.from_iterable(map(dict.values, said["propensity"])),
        "attempts": map(len, said["attempts"]),
        **{f"attempts.{name}": values for name, values in plain.items()},
        "attempts.tool_calls": [dump(calls) if calls else None for calls in tried["tool_calls"]],
        "attempts.verdicts": map(len, tried["verdicts"]),
        **{f"attempts.verdicts.{name}": values for name, values in judged.items()},
    }


def _messages(flat: Sequence[Json]) -> dict[str, Sequence[Any]]:
    if all(map(is_simple, flat)):
        roles, contents = list(map(itemgetter("role"), flat)), list(map(itemgetter("content"), flat))
        return {"messages.role": roles, "messages.content": contents, "messages.json": [None] * len(flat)}
    rows = [message_row(message) for message in flat]
    return {f"messages.{name}": [row[name] for row in rows] for name in ("role", "content", "json")}


def _fields(rows: Sequence[Struct], kind: type[Struct]) -> dict[str, Sequence[Any]]:
    names = kind.__struct_fields__
    return dict(zip(names, zip(*map(astuple, rows), strict=True) if rows else [()] * len(names), strict=True))
