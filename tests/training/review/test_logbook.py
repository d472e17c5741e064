"""A log as tables: counts against a log small enough to count by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from router_ml.schema import Attempt, Feedback, Interaction, RequestBody, Verdict
from router_ml_training.review.logbook import (
    data_quality,
    days,
    examples,
    feedback_table,
    interaction_table,
    prompt_of,
    tier_table,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TIERS = ("small", "large")


def tried(tier: str, usd: float, adequate: bool | None) -> Attempt:
    verdicts = () if adequate is None else (Verdict(adequate=adequate, source="check"),)
    return Attempt(tier=tier, cost_usd=usd, output_tokens=10, latency_ms=100.0, verdicts=verdicts)


def row(number: int, *attempts: Attempt, text: str = "hello", feedback: tuple[Feedback, ...] = ()) -> Interaction:
    messages = ({"role": "user", "content": text},) if text else ()
    ts = START + timedelta(days=number // 2, minutes=number)
    body = RequestBody(messages=messages)
    return Interaction(id=f"i{number}", ts=ts, feature="chat", request=body, attempts=attempts, feedback=feedback)


@pytest.fixture(scope="module")
def log() -> list[Interaction]:
    thumb = Feedback(ts=START, source="user", tier="large", adequate=True)
    return [
        row(0, tried("small", 0.001, True)),
        row(1, tried("small", 0.001, False), tried("large", 0.02, None), feedback=(thumb,)),
        row(2, tried("large", 0.03, True), text=""),
        row(3, Attempt(tier="small", error="timeout")),
    ]


def test_every_interaction_is_one_row_with_everything_it_cost(log: list[Interaction]) -> None:
    table = interaction_table(log, TIERS)
    assert table["first_tier"].to_list() == ["small", "small", "large", "small"]
    # A call that timed out gave no answer.
    assert table["last_tier"].to_list() == ["small", "large", "large", None]
    assert table["escalated"].to_list() == [False, True, False, False]
    assert table["cost_usd"].to_list() == [0.001, pytest.approx(0.021), 0.03, None]
    assert table["quality_first"].to_list() == [1.0, 0.0, 1.0, None]


def test_tiers_are_counted_by_calls_and_by_what_is_known_of_them(log: list[Interaction]) -> None:
    small, large = tier_table(log, TIERS).to_dicts()
    assert (small["calls"], small["errors"], small["known"], small["adequate"]) == (3, 1, 2, 0.5)
    assert (large["calls"], large["errors"], large["known"], large["adequate"]) == (2, 0, 2, 1.0)
    assert large["usd_per_1000"] == pytest.approx(25.0)


def test_judgements_are_counted_by_their_source(log: list[Interaction]) -> None:
    assert feedback_table(log).rows() == [("check", 3, pytest.approx(2 / 3)), ("user", 1, 1.0)]


def test_days_show_the_live_traffic_only(log: list[Interaction]) -> None:
    audit = log[0].model_copy(update={"mode": "audit", "id": "a"})
    found = days(interaction_table([*log, audit], TIERS))
    assert found["requests"].to_list() == [2, 2]
    assert found["escalated"].to_list() == [0.5, 0.0]
    assert found["quality_first"].to_list() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("kind", "prompts"), [("escalated", 1), ("failed", 1), ("dearest", 3), ("all", 3)], ids=lambda one: str(one)
)
def test_examples_are_of_the_kind_that_was_asked_for(log: list[Interaction], kind: str, prompts: int) -> None:
    shown = examples(interaction_table(log, TIERS), kind, n=3)
    assert len(shown) == prompts
    if kind == "dearest":
        assert shown["cost_usd"].to_list() == [0.03, pytest.approx(0.021), 0.001]
    if kind in ("escalated", "failed"):
        assert shown["last_tier"].to_list() == ["large"]


def test_a_prompt_is_one_short_line_and_its_absence_is_said(log: list[Interaction]) -> None:
    long = row(9, text="many\n words " * 100)
    assert prompt_of(long, 20) == "many words many wor…"
    assert prompt_of(log[2]) == "(no text in the log)"


def test_the_quality_report_is_that_of_the_import(log: list[Interaction]) -> None:
    report = data_quality(log, datetime(2026, 4, 1, tzinfo=UTC))
    assert (report.n_interactions, report.n_attempts, report.n_errors, report.n_missing_text) == (4, 5, 1, 1)
    assert data_quality([], datetime(2026, 4, 1, tzinfo=UTC)).n_interactions == 0


def test_an_empty_log_makes_empty_tables() -> None:
    table = interaction_table([], TIERS)
    assert (len(table), len(days(table)), len(feedback_table([])), len(examples(table, "all"))) == (0, 0, 0, 0)
    assert tier_table([], TIERS)["known"].to_list() == [0, 0]
