"""Flat columns of stored bodies: the items of all rows one after the other, and how many each row has."""

from __future__ import annotations

import json
from typing import Any

from router_ml.schema import Interaction
from router_ml_training.flat_bodies import read_flat

VERDICT = {"source": "check", "adequate": False}
TOLD = {"role": "tool", "content": "3", "tool_call_id": "c"}


def body(i: int, **changes: Any) -> str:
    record = {
        "id": f"i{i}",
        "ts": "2026-01-01T00:00:00Z",
        "request": {"messages": [{"role": "user", "content": f"q{i}"}] * (i % 3)},
        "candidates": ["small", "large"][: i % 3],
        "propensity": {"small": 0.25, "large": 0.75} if i % 2 else {},
        "attempts": [{"tier": "small", "verdicts": [VERDICT] * (i % 2)}] * (i % 3),
    }
    return Interaction.model_validate({**record, **changes}).to_json()


def test_lists_are_one_after_the_other_beside_their_lengths() -> None:
    columns, places = read_flat([body(0), body(1), body(2)])
    assert places == [0, 1, 2]
    assert columns["id"] == ["i0", "i1", "i2"]
    assert columns["messages"] == columns["attempts"] == columns["candidates"] == [0, 1, 2]
    assert columns["messages.role"] == ["user"] * 3
    assert columns["messages.content"] == ["q1", "q2", "q2"]
    assert columns["messages.json"] == columns["attempts.tool_calls"] == [None] * 3
    assert columns["candidates.item"] == ["small", "small", "large"]
    assert columns["propensity"] == [0, 2, 0]
    assert columns["propensity.tier"] == ["small", "large"]
    assert columns["propensity.p"] == [0.25, 0.75]
    assert columns["attempts.tier"] == ["small"] * 3
    assert columns["attempts.verdicts"] == [1, 0, 0]
    assert columns["attempts.verdicts.adequate"] == [False]


def test_what_has_no_column_of_its_own_is_json() -> None:
    called = {"tier": "small", "tool_calls": [{"id": "c"}]}
    request = {
        "messages": [{"role": "user", "content": "q"}, TOLD],
        "tools": [{"type": "function"}],
        "response_format": {"type": "text"},
    }
    columns, _ = read_flat([body(0, tags={"x": [1]}, request=request, attempts=[called]), body(1)])
    assert columns["tags"] == ['{"x":[1]}', "{}"]
    assert columns["tools"] == ['[{"type":"function"}]', None]
    assert columns["response_format"] == ['{"type":"text"}', None]
    assert columns["attempts.tool_calls"] == ['[{"id":"c"}]', None]
    assert columns["messages.content"] == ["q", "3", "q1"]
    assert [None if one is None else json.loads(one) for one in columns["messages.json"]] == [None, TOLD, None]


def test_the_places_of_those_that_fit_are_told_however_many_there_are() -> None:
    bodies = [body(i) if i % 7 else "{}" for i in range(500)]
    columns, places = read_flat(bodies)
    assert places == [i for i in range(500) if i % 7]
    assert columns["id"] == [f"i{i}" for i in places]
    assert sum(columns["messages"]) == len(columns["messages.role"]) == sum(i % 3 for i in places)


def test_of_nothing_every_column_is_there_and_empty() -> None:
    empty, none = read_flat([])
    some, _ = read_flat([body(1)])
    assert none == []
    assert empty == {name: [] for name in some}
