"""Stored interactions read strictly: types and ranges are those of the schema, and all else is left to its reader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import fields

from router_ml.schema import Attempt, Interaction, RequestBody, Verdict
from router_ml_training.stored_json import (
    StoredAttempt,
    StoredInteraction,
    StoredRequest,
    StoredVerdict,
    is_simple,
    read_strictly,
)

VERDICT = {"source": "check", "adequate": False}
ITEM = Interaction.model_validate(
    {
        "id": "i1",
        "ts": "2026-01-01T00:00:00Z",
        "tags": {"number": 10**30},
        "request": {"messages": [{"role": "user", "content": 'a\n"b"'}]},
        "candidates": ["small", "large"],
        "propensity": {"small": 0.25, "large": 0.75},
        "attempts": [{"tier": "small", "cost_usd": 1e-7, "verdicts": [VERDICT]}],
    }
)


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


def body(**changes: Any) -> str:
    return json.dumps({**json.loads(ITEM.to_json()), **changes})


@pytest.mark.parametrize(
    ("strict", "model"),
    [
        (StoredInteraction, Interaction),
        (StoredRequest, RequestBody),
        (StoredAttempt, Attempt),
        (StoredVerdict, Verdict),
    ],
)
def test_the_fields_are_those_of_the_schema_and_all_are_needed(strict: Any, model: Any) -> None:
    assert [field.name for field in fields(strict)] == [info.alias or name for name, info in model.model_fields.items()]
    assert all(field.required for field in fields(strict))


def test_what_the_service_writes_is_read() -> None:
    found = read_strictly(ITEM.to_json())
    assert found is not None
    assert (found.id, found.ts, found.mode) == ("i1", "2026-01-01T00:00:00Z", "live")
    assert found.tags == {"number": 10**30}
    assert found.request.messages == [{"role": "user", "content": 'a\n"b"'}]
    assert found.propensity == {"small": 0.25, "large": 0.75}
    assert found.attempts[0].cost_usd == 1e-7
    assert found.attempts[0].verdicts[0].adequate is False


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"mode": "other"},
        {"schema": "router_ml.interaction/2"},
        {"explored": 1},
        {"tenant": 1},
        {"propensity": {"small": 0.5}},
        {"propensity": {"small": 1.5, "large": -0.5}},
        {"tags": []},
        {"unknown": 1},
        {"feedback": [{"ts": "2026-01-01T00:00:00Z", "source": "user"}]},
        {"tags": {"x": nested(60)}},
    ],
)
def test_anything_else_is_left_to_the_reader_of_all_records(changes: dict[str, Any]) -> None:
    assert read_strictly(body()) is not None
    assert read_strictly(body(**changes)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "NaN", "[" * 5_000, '"\ud800"'])
def test_what_is_no_record_is_none(text: str) -> None:
    assert read_strictly(text) is None


def test_a_simple_message_is_a_role_and_a_text_in_this_order() -> None:
    assert is_simple({"role": "user", "content": "x"})
    assert not is_simple({"content": "x", "role": "user"})
    assert not is_simple({"role": "user", "content": None})
    assert not is_simple({"role": "user", "content": "x", "name": "y"})
