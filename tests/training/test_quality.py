from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from router_ml.schema import parse_interaction
from router_ml_training.quality import DataQuality, QualityCounter

NOW = datetime(2026, 1, 2, tzinfo=UTC)
GOOD = {"adequate": True, "source": "judge"}
BAD = {"adequate": False, "source": "user"}


def small(*verdicts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    known = {"cost_usd": 0.1, "input_tokens": 1, "output_tokens": 1}
    return {"tier": "small", **known, "verdicts": verdicts, **fields}


def large(*verdicts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**small(*verdicts, **fields), "tier": "large"}


def row(*attempts: dict[str, Any], minute: int = 0, **fields: Any) -> dict[str, Any]:
    usual = {
        "ts": (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute)).isoformat(),
        "request": {"messages": [{"role": "user", "content": "hi"}]},
        "propensity": {"small": 0.9, "large": 0.1},
    }
    return {"id": "a", **usual, "attempts": attempts, **fields}


def quality_of(*rows: dict[str, Any], **counts: int) -> DataQuality:
    counter = QualityCounter(NOW)
    for item in rows:
        counter.add(parse_interaction(item))
    return counter.result(**counts)


def warned(quality: DataQuality, words: str) -> bool:
    return any(words in sentence for sentence in quality.warnings)


def test_known_and_failed_outcomes_are_counted_per_tier_and_the_untried_tier_is_unknown() -> None:
    quality = quality_of(row(small(GOOD)), row(small(BAD), large(GOOD)), row(large()), row(small(BAD)))
    tiers = quality.tiers
    assert (tiers["small"].n_attempts, tiers["small"].n_known, tiers["small"].n_failed) == (3, 3, 2)
    assert (tiers["small"].unknown_share, tiers["small"].failure_rate) == (0.25, pytest.approx(2 / 3))
    assert (tiers["large"].n_attempts, tiers["large"].n_known, tiers["large"].unknown_share) == (2, 1, 0.75)
    assert quality.label_sources == {"judge": 2, "user": 2}


def test_an_error_is_no_outcome_and_lacks_no_cost() -> None:
    quality = quality_of(row(small(BAD, error="timeout", cost_usd=None, input_tokens=None)))
    tier = quality.tiers["small"]
    assert (tier.n_errors, tier.n_known, tier.error_share, tier.failure_rate) == (1, 0, 1.0, None)
    assert (quality.n_errors, quality.n_missing_cost, quality.n_missing_tokens) == (1, 0, 0)
    assert warned(quality, "100% of the attempts of tier 'small' ended in an error")


def test_a_candidate_that_was_never_tried_is_listed_as_never_known() -> None:
    quality = quality_of(row(small(GOOD), candidates=["small", "large"]))
    assert quality.tiers["large"].unknown_share == 1.0
    assert quality.tiers["large"].error_share is None
    assert warned(quality, "the outcome of tier 'large' is never known")
    assert warned(quality, "only the tier 'small' was ever tried")


def test_time_order_range_and_future_are_counted() -> None:
    quality = quality_of(*(row(small(), minute=minute) for minute in (5, 3, 4, 9, 60 * 24 + 1)))
    assert (quality.n_out_of_order, quality.n_future) == (2, 1)
    assert quality.first_ts == datetime(2026, 1, 1, 0, 3, tzinfo=UTC)
    assert quality.last_ts == datetime(2026, 1, 2, 0, 1, tzinfo=UTC)
    assert warned(quality, "2 interactions are older than one before them")
    assert warned(quality, "1 interactions lie in the future")


def test_what_is_missing_is_counted() -> None:
    quality = quality_of(row(small(cost_usd=None), large(output_tokens=None)), row(request={}))
    assert (quality.n_missing_cost, quality.n_missing_tokens) == (1, 1)
    assert (quality.n_missing_text, quality.n_without_attempt) == (1, 1)


def test_propensities_are_asked_of_live_interactions_only() -> None:
    quality = quality_of(
        row(small(), propensity={}),
        row(small(), propensity={"large": 1.0}),
        row(small(), propensity={"small": 0.0, "large": 1.0}),
        row(small()),
        row(small(), propensity={}, mode="audit"),
        row(propensity={}),
    )
    assert (quality.n_live, quality.n_propensity_missing, quality.n_propensity_zero) == (4, 2, 1)
    assert quality.modes == {"audit": 1, "live": 5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row(small(GOOD), large(GOOD))], "none of the 1 known outcomes of tier 'small' is a failure"),
        ([row(small(BAD), large(GOOD))], "all 1 known outcomes of tier 'small' are failures"),
        ([row(small(BAD), large(BAD))], "all labels come from one source, 'user'"),
        ([row(small(), large())], "no attempt was judged and no feedback came"),
        ([row(small(GOOD))], "only 1 interactions"),
    ],
)
def test_a_log_that_cannot_teach_is_said_to_be_so(rows: list[dict[str, Any]], words: str) -> None:
    assert warned(quality_of(*rows), words)


def test_a_sound_log_has_no_warnings() -> None:
    rows = [row(small(GOOD), large(GOOD)), row(small(BAD), large(BAD))] * 300
    assert quality_of(*rows).warnings == ()


def test_one_source_is_enough_when_it_is_the_truth() -> None:
    check = {"adequate": True, "source": "check"}
    assert not warned(quality_of(row(small(check), large(check))), "one source")


def test_an_empty_log_has_a_report_too() -> None:
    quality = quality_of()
    assert (quality.n_interactions, quality.first_ts, quality.tiers) == (0, None, {})
    assert "interactions  0" in quality.to_text()


def test_the_report_is_json_and_text() -> None:
    quality = quality_of(row(small(GOOD), large(BAD)), duplicates=3, conflicting=2)
    record = json.loads(json.dumps(quality.to_dict()))
    assert record["tiers"]["small"]["failure_rate"] == 0.0
    assert (record["n_duplicates"], record["n_conflicting"]) == (3, 2)
    assert record["first_ts"] == "2026-01-01T00:00:00+00:00"
    text = quality.to_text()
    assert "3 duplicates, 2 with other content" in text
    assert "tier small: 1 attempts" in text
    assert "warning: 2 rows have the id of an earlier row" in text
