"""Parts of a golden run by themselves: what a set looks like, what checks find, the purse, the alarm's arithmetic."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.errors import ConfigError, DataError
from router_ml.schema import Answer
from router_ml_serving.golden.checks import Checks, failed_checks
from router_ml_serving.golden.history import (
    ALPHA,
    GoldenHistory,
    GoldenRun,
    TierRun,
    chance_of_so_few,
    fall_of,
    read_history,
)
from router_ml_serving.golden.items import GoldenItem, read_golden
from router_ml_serving.golden.json_schema import check_schema, conforms
from router_ml_serving.golden.judge import verdict_of
from router_ml_serving.golden.purse import Purse

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ASKED = {"messages": [{"role": "user", "content": "secret words"}]}


def said(text: str, *calls: dict[str, Any]) -> Answer:
    return Answer(text, "stop", tool_calls=calls)


@pytest.mark.parametrize(
    ("checks", "passes", "fails"),
    [
        ({"equals": "Paris"}, " Paris\n", "Paris."),
        ({"equals": ["Paris", "Paris."]}, "Paris.", "paris"),
        ({"contains": ["Paris", "Seine"]}, "Paris on the Seine", "Paris"),
        ({"regex": r"^\d{4}-\d\d$"}, "2026-11", "11/2026"),
        ({"number": {"value": 1234.5}}, "Half of 2,469 is 1,234.5.", "It is 1,234"),
        ({"number": {"value": 3.14, "tolerance": 0.01}}, "about 3.141", "about 3.2"),
        ({"number": {"value": -3}}, "x = -3", "x = 3"),
        ({"number": {"value": 0.5}}, "about .5", "about 5"),
        ({"number": {"value": 10}}, "in the range 5-10", "in the range 5 to -10"),
        ({"number": {"value": 0.3}}, "0.30000000000000004", "none at all"),
        ({"valid_json": True}, '{"a": 1}', "{'a': 1}"),
        ({"json_schema": {"type": "object", "required": ["a"]}}, '{"a": 1}', '{"b": 1}'),
        ({"json_schema": {"type": "array"}}, "[]", "not JSON"),
        ({"max_chars": 5}, "12345", "123456"),
    ],
)
def test_a_check_tells_a_good_answer_from_a_poor_one(checks: dict[str, Any], passes: str, fails: str) -> None:
    wanted = Checks.model_validate(checks)
    assert failed_checks(wanted, said(passes)) == []
    assert failed_checks(wanted, said(fails)) == list(checks)


def test_a_tool_has_to_be_called_with_an_object() -> None:
    wanted = Checks(tool_call="get_weather")
    call = {"function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    assert failed_checks(wanted, said("", call)) == []
    for poor in ({}, {"function": {"name": "other", "arguments": "{}"}}, {"function": {"name": "get_weather"}}):
        assert failed_checks(wanted, said("", poor)) == ["tool_call"]


def test_every_check_that_fails_is_named() -> None:
    wanted = Checks(contains="Paris", max_chars=3, valid_json=True)
    assert failed_checks(wanted, said("Rome")) == ["contains", "valid_json", "max_chars"]


SCHEMA = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"enum": ["a", "b"]},
        "n": {"type": ["integer", "null"], "minimum": 0, "maximum": 3},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 2},
        "on": {"const": True},
    },
}


@pytest.mark.parametrize(
    "value",
    [
        {"name": "a"},
        {"name": "b", "n": 3, "tags": ["x"], "on": True},
        {"name": "a", "n": None},
        {"name": "a", "n": 2.0},
    ],
)
def test_what_keeps_to_a_schema_conforms(value: Any) -> None:
    check_schema(SCHEMA)
    assert conforms(value, SCHEMA)


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        {"name": "c"},
        {"name": "a", "x": 1},
        {"name": "a", "n": 4},
        {"name": "a", "n": -1},
        {"name": "a", "n": 1.5},
        {"name": "a", "n": True},
        {"name": "a", "tags": []},
        {"name": "a", "tags": ["x", "y", "z"]},
        {"name": "a", "tags": [1]},
        {"name": "a", "on": 1},
    ],
)
def test_what_breaks_a_schema_does_not(value: Any) -> None:
    assert not conforms(value, SCHEMA)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"pattern": "x"}, "json_schema.pattern: not understood"),
        ({"properties": {"a": {"$ref": "#"}}}, r"json_schema.properties.a.\$ref: not understood"),
        ({"items": {"type": "text"}}, "json_schema.items.type: expected one or several of"),
        ({"additionalProperties": {"type": "string"}}, "expected true or false"),
        ({"items": []}, "a schema is an object"),
        ({"required": "name"}, "json_schema.required: expected list, got str"),
        ({"minimum": "0"}, "json_schema.minimum: expected float, got str"),
        ({"required": [["name"]]}, "json_schema.required: expected names"),
        ({"type": [["object"]]}, "json_schema.type: expected one or several of"),
    ],
)
def test_a_schema_that_says_more_than_is_understood_is_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        check_schema(schema)


@pytest.mark.parametrize(
    ("text", "adequate"),
    [
        ('{"adequate": true}', True),
        (' {"adequate": false, "score": 0.2, "reason": "wrong"}\n', False),
        ('```json\n{"adequate": true}\n```', None),
        ('{"adequate": "true"}', None),
        ('{"adequate": true, "score": 7}', None),
        ('{"verdict": true}', None),
        ("The answer is adequate.", None),
        ("", None),
    ],
)
def test_a_verdict_counts_only_in_the_form_that_was_asked_for(text: str, adequate: bool | None) -> None:
    verdict = verdict_of(text)
    assert (None if verdict is None else verdict.adequate) is adequate


# The file


def write(path: Path, *lines: object) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_a_set_is_what_its_items_are_in_any_order(tmp_path: Path) -> None:
    one = {"id": "1", "request": ASKED, "checks": {"contains": "x"}}
    two = {"id": "2", "request": ASKED, "judge": True}
    found = read_golden(write(tmp_path / "a", one, "", two))
    assert [item.id for item in found.items] == ["1", "2"]
    assert read_golden(write(tmp_path / "b", two, one)).digest == found.digest
    assert read_golden(write(tmp_path / "c", one)).digest != found.digest


def test_an_item_is_known_by_what_it_asks_and_wants() -> None:
    item = GoldenItem.model_validate({"id": "1", "request": ASKED, "checks": {"contains": "x"}})
    assert item.model_copy(update={"id": "2"}).digest == item.digest
    changed = GoldenItem.model_validate({"id": "1", "request": ASKED, "checks": {"contains": "y"}})
    assert changed.digest != item.digest


def test_every_mistake_is_told_with_its_line_and_without_the_prompt(tmp_path: Path) -> None:
    good = {"id": "1", "request": ASKED, "checks": {"contains": "x"}}
    path = write(
        tmp_path / "golden.jsonl",
        good,
        "{secret words",
        {**good, "id": "2", "checks": {"contain": "x"}},
        {**good, "id": "3", "checks": {}},
        {**good, "id": "4", "request": {"messages": []}},
        {**good, "id": "5", "request": {**ASKED, "model": "gpt-4o"}},
        {**good, "id": "6", "checks": {"regex": "("}},
        {**good, "id": "7", "checks": {"json_schema": {"oneOf": []}}},
        {**good, "id": "two words"},
        {**good, "id": "8", "request": {**ASKED, "n": 5}},
        good,
    )
    with pytest.raises(ConfigError) as raised:
        read_golden(path)
    text = str(raised.value)
    assert "secret words" not in text
    wanted = ("line 2: ", "line 3: checks.contain", "line 4: checks: nothing", "line 5: request: messages")
    wanted += (
        "line 6: request: leave out model",
        "line 7: checks",
        "line 8: checks",
        "line 9: id",
        "line 10: request: leave out n",
        "id '1': there twice",
    )
    assert [part for part in wanted if part not in text] == []


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no items"):
        read_golden(write(tmp_path / "golden.jsonl", ""))


# The purse


def test_money_under_way_is_not_spent_twice() -> None:
    purse = Purse(1.0)
    purse.set_aside(0.6)
    assert not purse.fits(0.5)
    purse.settle(0.6, 0.1)
    assert purse.fits(0.5)
    assert purse.spent_usd == pytest.approx(0.1)


def test_an_estimate_that_was_too_low_makes_careful() -> None:
    purse = Purse(1.0)
    purse.set_aside(0.1)
    purse.settle(0.1, 0.3)
    assert purse.fits(0.2)
    assert not purse.fits(0.3)


# The alarm


def test_the_chance_is_that_of_counting_all_cases() -> None:
    chances = [0.5, 0.9, 1.0, 0.25]
    for n in range(5):
        cases = product([0, 1], repeat=4)
        exact = sum(
            float(np.prod([p if hit else 1 - p for p, hit in zip(chances, case, strict=True)]))
            for case in cases
            if sum(case) <= n
        )
        assert chance_of_so_few(chances, n) == pytest.approx(exact)


def a_run(slot: str, passed: dict[str, bool | None], model: str = "mini", judge: str | None = None) -> GoldenRun:
    tiers = {"small": TierRun(model=model, passed=passed)}
    return GoldenRun(slot=slot, set="s", judge=judge, started=NOW, tiers=tiers)


def history_of(*runs: GoldenRun) -> GoldenHistory:
    history = GoldenHistory()
    for one in runs:
        history = history.with_run(one)
    return history


def test_without_earlier_runs_nothing_can_be_said() -> None:
    now = a_run("b", {"x": False})
    assert fall_of(GoldenHistory(), now, "small") is None
    assert fall_of(history_of(now), now, "small") is None
    assert fall_of(history_of(a_run("a", {"y": True})), now, "small") is None
    # Another model behind the tier, as configured: nothing to compare with.
    assert fall_of(history_of(a_run("a", {"x": True}, model="nano")), now, "small") is None
    assert fall_of(history_of(a_run("a", {"x": None})), now, "small") is None
    # Another judge has other standards.
    assert fall_of(history_of(a_run("a", {"x": True}, judge="grader-1")), now, "small") is None


def test_with_one_run_before_it_is_mcnemars_test() -> None:
    before = a_run("a", {**{f"x{i}": True for i in range(6)}, "y": False, "z": True})
    now = a_run("b", {**{f"x{i}": False for i in range(6)}, "y": True, "z": True})
    # Seven items differ, one of them for the better.
    assert fall_of(history_of(before), now, "small") == pytest.approx((7 + 1) / 2**7)


def test_a_tier_that_is_what_it_was_rarely_rings() -> None:
    rng = np.random.default_rng(0)
    items = {f"x{i}": float(rng.beta(2.0, 0.5)) for i in range(40)}
    rung, runs, history = 0, 1500, GoldenHistory()
    for slot in range(runs):
        now = a_run(str(slot), {name: bool(rng.random() < p) for name, p in items.items()})
        chance = fall_of(history, now, "small")
        # At a level that such a number of runs can tell.
        rung += chance is not None and chance <= 0.02
        history = history.with_run(now)
    assert rung / runs <= 0.02
    assert rung > 0


def test_a_model_that_was_changed_rings_at_once() -> None:
    rng, rung = np.random.default_rng(1), 0
    for _ in range(50):
        items = [f"x{i}" for i in range(60)]
        runs = [a_run(str(n), {name: bool(rng.random() < 0.95) for name in items}) for n in range(10)]
        worse = a_run("now", {name: bool(rng.random() < 0.75) for name in items})
        chance = fall_of(history_of(*runs), worse, "small")
        rung += chance is not None and chance <= ALPHA
    assert rung >= 45


def test_history_is_kept_and_bounded(tmp_path: Path) -> None:
    history = history_of(*(a_run(str(n), {"x": True}) for n in range(50)))
    assert [run.slot for run in history.runs] == [str(n) for n in range(20, 50)]
    history.write(tmp_path)
    assert read_history(tmp_path) == history


def test_a_broken_history_is_told(tmp_path: Path) -> None:
    assert read_history(tmp_path) == GoldenHistory()
    (tmp_path / "golden.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"golden\.json: not written by `router-ml golden`; move it away"):
        read_history(tmp_path)
