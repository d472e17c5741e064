from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from router_ml.errors import DataError, ObjectStoreError, UsageError
from router_ml.schema import Interaction
from router_ml_training.corpus.units import units_of
from router_ml_training.reading import Log
from router_ml_training.sources import Reject, SourceOptions, outcomes
from router_ml_training.sources.outcomes import read

TIERS = {"small": "org/tiny", "large": "org/huge"}
OPTIONS = SourceOptions(tiers=TIERS)
ROUTELLM = {"small": "mistralai/Mixtral-8x7B-Instruct-v0.1", "large": "gpt-4-1106-preview"}


def cell(number: int, model: str, /, **fields: Any) -> dict[str, Any]:
    usual = {"quality": 1.0, "cost_usd": 0.01, "input_tokens": 10, "output_tokens": 5}
    return {"prompt_id": f"p{number}", "prompt": f"question {number}", "model": model, **usual, **fields}


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    return str(path)


def interactions(location: str, options: SourceOptions = OPTIONS) -> list[Interaction]:
    found = list(read(location, options))
    assert not [item for item in found if isinstance(item, Reject)]
    return [item for item in found if isinstance(item, Interaction)]


def test_a_prompt_becomes_an_audit_with_one_checked_attempt_per_tier(tmp_path: Path) -> None:
    rows = [
        cell(0, "org/other", quality=0.1),
        cell(0, "org/huge", quality=1.0, cost_usd=0.5, response="42"),
        cell(0, "org/tiny", quality=0.4, response=None),
    ]
    (item,) = interactions(table(tmp_path / "t.parquet", rows))
    assert (item.id, item.mode, item.candidates, item.propensity) == ("p0", "audit", ("small", "large"), {})
    assert item.request.messages == ({"role": "user", "content": "question 0"},)
    small, large = item.attempts
    assert (small.tier, small.model, small.cost_usd, small.input_tokens, small.response) == (
        *("small", "org/tiny", 0.01, 10),
        None,
    )
    assert (large.tier, large.cost_usd, large.response) == ("large", 0.5, "42")
    assert [v.model_dump(exclude_none=True) for v in small.verdicts] == [
        {"adequate": False, "score": 0.4, "source": "check"}
    ]
    assert large.verdicts[0].adequate is True


def test_the_bar_says_which_quality_is_adequate(tmp_path: Path) -> None:
    location = table(tmp_path / "t.parquet", [cell(0, "org/tiny", quality=0.9), cell(0, "org/huge", quality=0.8)])
    (item,) = interactions(location, SourceOptions(tiers=TIERS, adequate_bar=0.9))
    assert [attempt.verdicts[0].adequate for attempt in item.attempts] == [True, False]


@pytest.mark.parametrize("by", ["prompt_id", "model", "neither"])
def test_prompts_come_whole_and_in_order_of_first_appearance_however_the_rows_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(outcomes, "_ROWS_AT_ONCE", 14)  # seven prompts at a time
    rows = [cell(i, model) for i in range(50) for model in TIERS.values()]
    if by == "model":
        rows.sort(key=lambda row: str(row["model"]))
    if by == "neither":
        rows = rows[::2][::-1] + rows[1::2]
    expected = list(dict.fromkeys(row["prompt_id"] for row in rows))
    found = interactions(table(tmp_path / "t.parquet", rows))
    assert [item.id for item in found] == expected
    assert all(len(item.attempts) == 2 for item in found)
    assert all(a.ts < b.ts for a, b in pairwise(found))


def test_request_columns_are_read_and_times_are_those_of_the_table(tmp_path: Path) -> None:
    request = {
        "messages": json.dumps([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]),
        "tools": json.dumps([{"type": "function", "function": {"name": "f"}}]),
        "response_format": None,
        "max_tokens": 99,
        "tenant": "acme",
        "feature": "chat",
        "use_case": "batch",
        "session_id": "s1",
        "ts": datetime(2026, 5, 1, 12, tzinfo=UTC),
    }
    (item,) = interactions(table(tmp_path / "t.parquet", [cell(0, model, **request) for model in TIERS.values()]))
    assert [message["content"] for message in item.request.messages] == ["be brief", "hi"]
    assert item.request.tools == ({"type": "function", "function": {"name": "f"}},)
    assert (item.request.max_tokens, item.tenant, item.feature) == (99, "acme", "chat")
    assert (item.use_case, item.session_id, item.ts) == ("batch", "s1", request["ts"])
    assert item.tags == {}


def test_other_columns_are_kept_in_tags_per_tier_where_they_differ(tmp_path: Path) -> None:
    rows = [
        cell(0, "org/tiny", task="maths", n_checks=3, note=None, sure=float("nan"), when=datetime(2026, 1, 1)),
        cell(0, "org/huge", task="maths", n_checks=5, note=None, sure=float("nan"), when=datetime(2026, 1, 1)),
    ]
    (item,) = interactions(table(tmp_path / "t.parquet", rows))
    assert item.tags == {
        "ts_assigned": True,
        "task": "maths",
        "n_checks": {"small": 3, "large": 5},
        "when": "2026-01-01T00:00:00",
    }


def test_what_was_not_run_or_not_judged_or_broke_down_stays_unknown(tmp_path: Path) -> None:
    rows = [
        cell(0, "org/tiny"),
        cell(1, "org/tiny", quality=None),
        cell(1, "org/huge", quality=0.7, error="timeout"),
    ]
    one, two = interactions(table(tmp_path / "t.parquet", rows))
    assert [attempt.tier for attempt in one.attempts] == ["small"]
    assert [attempt.verdicts for attempt in two.attempts] == [(), ()]
    assert two.attempts[1].error == "timeout"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"quality": float("nan")}, "attempts.0.verdicts.0.score: Input should be a finite number"),
        ({"quality": 1.5}, "attempts.0.verdicts.0.score: Input should be less than or equal to 1"),
        ({"cost_usd": float("nan")}, "attempts.0.cost_usd: Input should be a finite number"),
        ({"cost_usd": -0.1}, "attempts.0.cost_usd: Input should be greater than or equal to 0"),
        ({"prompt": None}, "prompt: missing"),
        ({"prompt_id": None}, "id: Input should be a valid string"),
        ({"messages": "[{"}, "messages: not valid JSON"),
        ({"messages": '"hello"'}, "request.messages"),
        ({"ts": "soon"}, "ts: Input should be a valid datetime"),
    ],
)
def test_a_bad_prompt_is_rejected_with_its_row_and_the_others_are_read(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    absent = {name: None for name in fields if name in ("messages", "ts")}
    rows = [cell(0, "org/tiny", **absent), cell(0, "org/huge", **absent), cell(1, "org/tiny", **fields)]
    location = table(tmp_path / "t.parquet", rows)
    good, bad = read(location, OPTIONS)
    assert isinstance(good, Interaction)
    assert isinstance(bad, Reject)
    assert (bad.line, bad.file) == (3, location)
    assert reason in bad.reason


def test_two_rows_of_one_model_for_one_prompt_are_rejected(tmp_path: Path) -> None:
    rows = [cell(0, "org/tiny"), cell(0, "org/tiny", quality=0.0), cell(0, "org/huge")]
    (bad,) = read(table(tmp_path / "t.parquet", rows), OPTIONS)
    assert isinstance(bad, Reject)
    assert "prompt_id 'p0' has 3 rows for 2 models" in bad.reason


def test_missing_columns_are_all_named_with_those_there_are(tmp_path: Path) -> None:
    location = table(tmp_path / "t.parquet", [{"prompt_id": "a", "Model": "org/tiny", "score": 1.0}])
    expected = (
        r"missing model, quality, .*, prompt \(or messages\) \(did you mean 'Model'\?\).*it has prompt_id, Model, score"
    )
    with pytest.raises(DataError, match=expected):
        list(read(location, OPTIONS))


def test_a_column_of_the_wrong_type_is_named(tmp_path: Path) -> None:
    location = table(tmp_path / "t.parquet", [cell(0, "org/tiny", cost_usd="cheap")])
    with pytest.raises(DataError, match="column cost_usd holds String, expected numbers"):
        list(read(location, OPTIONS))


def test_without_tiers_the_error_shows_what_could_be_passed(tmp_path: Path) -> None:
    location = table(tmp_path / "t.parquet", [cell(0, model) for model in TIERS.values()])
    with pytest.raises(UsageError, match="--tiers small=org/huge,large=org/tiny"):
        list(read(location, SourceOptions()))


@pytest.mark.parametrize(
    ("tiers", "error", "message"),
    [
        ({"small": "org/tinny"}, DataError, r"no rows for the model 'org/tinny' \(did you mean 'org/tiny'\?\)"),
        ({"small": "org/tiny", "large": "org/tiny"}, UsageError, "two tiers cannot be the same model"),
    ],
)
def test_tiers_that_do_not_fit_the_table_are_refused(
    tmp_path: Path, tiers: dict[str, str], error: type[Exception], message: str
) -> None:
    location = table(tmp_path / "t.parquet", [cell(0, model) for model in TIERS.values()])
    with pytest.raises(error, match=message):
        list(read(location, SourceOptions(tiers=tiers)))


def test_a_table_without_rows_is_said_to_be_empty(tmp_path: Path) -> None:
    pl.DataFrame([cell(0, "org/tiny")]).clear().write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="the table has no rows"):
        list(read(str(tmp_path / "t.parquet"), OPTIONS))


def test_csv_reads_like_parquet_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    rows = [cell(i, model, task="t") for i in range(3) for model in TIERS.values()]
    expected = interactions(table(tmp_path / "t.parquet", rows))
    pl.DataFrame(rows).write_csv(tmp_path / "t.csv")
    assert interactions(str(tmp_path / "t.csv")) == expected
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"bad\.parquet"):
        list(read(str(tmp_path / "bad.parquet"), OPTIONS))


@pytest.mark.parametrize(
    ("name", "tiers", "n_prompts", "quality"),
    [
        ("mmlu_pro", {"small": "gemini-1.5-flash-002", "large": "gemini-1.5-pro-002"}, 11_843, (0.6421, 0.7024)),
        ("routellm_mmlu", ROUTELLM, 13_937, (0.6801, 0.8058)),
        ("routellm_gsm8k", ROUTELLM, 1_319, (0.6384, 0.8567)),
        ("routellm_mtbench", ROUTELLM, 160, (0.8341, 0.9228)),
        ("zeroeval_gsm", {"small": "gpt-4o-mini-2024-07-18", "large": "gpt-4o-2024-08-06"}, 1_319, (0.9424, 0.9621)),
        ("hellobench", {"small": "qwen2_7b", "large": "claude35"}, 647, (0.8086, 0.8722)),
    ],
)
def test_real_tables_are_imported_whole(
    name: str, tiers: dict[str, str], n_prompts: int, quality: tuple[float, float]
) -> None:
    folder = os.environ.get("ROUTER_ML_OUTCOMES")
    if not folder:
        pytest.skip("ROUTER_ML_OUTCOMES is not set to a folder of real outcome tables")
    found = interactions(str(Path(folder) / f"{name}.parquet"), SourceOptions(tiers=tiers))
    assert len(found) == n_prompts
    for i, expected in enumerate(quality):
        scores = [item.attempts[i].verdicts[0].score or 0.0 for item in found]
        assert sum(scores) / n_prompts == pytest.approx(expected, abs=5e-5)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_on_object_storage_reads_like_a_file(kind: str, objects: Any, tmp_path: Path) -> None:
    rows = [cell(i, model, quality=i % 2) for i in range(30) for model in ("org/tiny", "org/huge")]
    frame, file = pl.DataFrame(rows), tmp_path / f"t.{kind}"
    frame.write_parquet(file) if kind == "parquet" else frame.write_csv(file)
    objects.store().replace(f"tables/{kind}/t.{kind}", file)
    options = replace(OPTIONS, objects=objects.settings)
    url = f"{objects.url}/tables/{kind}"
    assert interactions(url, options) == interactions(str(file))

    log = Log(url, "outcomes", objects.settings)
    (before,) = units_of(log)
    assert units_of(log) == [before]
    found = read(url, options)
    next(found)
    pl.concat([frame, frame.with_columns(prompt_id="q" + pl.col("prompt_id"))]).write_parquet(file)
    objects.store().replace(f"tables/{kind}/t.{kind}", file)
    with pytest.raises((ObjectStoreError, DataError)):
        list(found)
    assert units_of(log) != [before]


@pytest.mark.e2e
def test_a_storage_that_is_away_is_not_taken_for_a_bad_table(objects_of_its_own: Any, tmp_path: Path) -> None:
    table(tmp_path / "t.parquet", [cell(i, model) for i in range(3) for model in ("org/tiny", "org/huge")])
    objects_of_its_own.store().replace("t.parquet", tmp_path / "t.parquet")
    options = replace(OPTIONS, objects=objects_of_its_own.settings)
    url = f"{objects_of_its_own.url}/t.parquet"
    assert len(interactions(url, options)) == 3
    objects_of_its_own.stop()
    with pytest.raises(ObjectStoreError, match="does not answer"):
        list(read(url, options))
