"""Attempts and feedback -> evidence: a table of cases, and what must hold for any of them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.schema import Attempt, Feedback, Interaction, Verdict
from router_ml_training.labels import Evidence, evidence_of, thin_retries, thin_rule_refusals
from router_ml_training.reliability import NOISY_SOURCES, SILENT

TIERS = ("small", "medium", "large")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
UNKNOWN = math.nan


def verdict(source: str, adequate: bool | None = None, score: float | None = None) -> Verdict:
    return Verdict.model_validate({"source": source, "adequate": adequate, "score": score})


def said(source: str, adequate: bool | None = None, *, after_s: float = 0.0, **fields: Any) -> Feedback:
    ts = NOW + timedelta(seconds=after_s)
    return Feedback.model_validate({"ts": ts, "source": source, "adequate": adequate, **fields})


def attempt(tier: str, *verdicts: Verdict, **fields: Any) -> Attempt:
    return Attempt.model_validate({"tier": tier, "verdicts": verdicts, **fields})


def evidence(*attempts: Attempt, feedback: tuple[Feedback, ...] = (), mode: str = "live") -> Evidence:
    item = Interaction.model_validate({"id": "1", "ts": NOW, "mode": mode, "attempts": attempts, "feedback": feedback})
    return evidence_of(item, TIERS)


GOOD, BAD = verdict("check", True), verdict("check", False)


@pytest.mark.parametrize(
    ("attempts", "feedback", "quality"),
    [
        pytest.param([], [], [UNKNOWN] * 3, id="nothing was tried"),
        pytest.param([attempt("small")], [], [UNKNOWN] * 3, id="tried and never judged"),
        pytest.param([attempt("small", GOOD)], [], [1, UNKNOWN, UNKNOWN], id="untried tiers stay unknown"),
        pytest.param([attempt("small", BAD), attempt("large", GOOD)], [], [0, UNKNOWN, 1], id="a chain"),
        pytest.param(
            [attempt("small", error="timeout"), attempt("large", GOOD)],
            [],
            [UNKNOWN, UNKNOWN, 1],
            id="an infrastructure error is no evidence",
        ),
        pytest.param(
            [attempt("small", BAD, error="429")], [said("user", False)], [UNKNOWN] * 3, id="nor with verdicts on it"
        ),
        pytest.param([attempt("small", verdict("rule", True))], [], [UNKNOWN] * 3, id="a rule that passes is unknown"),
        pytest.param(
            [attempt("small", verdict("rule", None, 0.9))], [], [UNKNOWN] * 3, id="nor does a rule's score say more"
        ),
        pytest.param(
            [attempt("small", verdict("rule", False))], [], [0, UNKNOWN, UNKNOWN], id="a rule that fails is 0"
        ),
        pytest.param(
            [attempt("small", verdict("rule", False, 0.4))], [], [0, UNKNOWN, UNKNOWN], id="whatever its score"
        ),
        pytest.param([attempt("small", verdict("judge", True, 0.7))], [], [0.7, UNKNOWN, UNKNOWN], id="a score grades"),
        pytest.param(
            [attempt("small", verdict("judge"))], [], [UNKNOWN] * 3, id="a verdict that says nothing is unknown"
        ),
        pytest.param(
            [attempt("small", verdict("rule", False))], [said("user", True)], [1, UNKNOWN, UNKNOWN], id="user over rule"
        ),
        pytest.param(
            [attempt("small")],
            [said("human", False), said("user", True, after_s=9)],
            [0, UNKNOWN, UNKNOWN],
            id="human over user, also when the user speaks later",
        ),
        pytest.param(
            [attempt("small", verdict("verifier", False, 0.1))],
            [said("user", True)],
            [1, UNKNOWN, UNKNOWN],
            id="user over verifier",
        ),
        pytest.param(
            [attempt("small")],
            [said("user", True), said("user", False, after_s=5)],
            [0, UNKNOWN, UNKNOWN],
            id="later words over earlier ones",
        ),
        pytest.param(
            [attempt("small")],
            [said("user", True, after_s=5), said("user", False)],
            [1, UNKNOWN, UNKNOWN],
            id="later by the clock, not by the place in the log",
        ),
        pytest.param(
            [attempt("small")],
            [said("user", True), said("user", None, after_s=5)],
            [1, UNKNOWN, UNKNOWN],
            id="silence overrules nothing",
        ),
        pytest.param(
            [attempt("small", BAD), attempt("large")],
            [said("user", True)],
            [0, UNKNOWN, 1],
            id="feedback without a tier is about the last answer",
        ),
        pytest.param(
            [attempt("small", verdict("rule", False)), attempt("large", error="timeout")],
            [said("user", True)],
            [1, UNKNOWN, UNKNOWN],
            id="the last answer, not the last attempt",
        ),
        pytest.param(
            [attempt("small"), attempt("large")],
            [said("user", False, tier="small")],
            [0, UNKNOWN, UNKNOWN],
            id="feedback about the tier it names",
        ),
        pytest.param(
            [attempt("small", GOOD)], [said("user", False, tier="medium")], [1, UNKNOWN, UNKNOWN], id="never tried"
        ),
        pytest.param([attempt("gone", GOOD)], [], [UNKNOWN] * 3, id="a tier that left the ladder is left out"),
    ],
)
def test_what_is_known_of_each_tier(attempts: list[Attempt], feedback: list[Feedback], quality: list[float]) -> None:
    found = evidence(*attempts, feedback=tuple(feedback))
    np.testing.assert_array_equal(found.quality, quality)


@pytest.mark.parametrize("mode", ["live", "shadow", "audit"])
def test_only_a_live_tier_ran_because_a_cheaper_one_was_refused(mode: str) -> None:
    found = evidence(attempt("small", BAD), attempt("large", GOOD), mode=mode)
    assert found.escalated.tolist() == [False, False, mode == "live"]


def test_a_verifier_labels_nothing_and_its_opinion_is_kept() -> None:
    found = evidence(attempt("small", verdict("verifier", False, 0.1)), attempt("large", GOOD))
    assert np.isnan(found.quality[0])
    assert found.opinions[0].tolist() == [-1, 0, -1, -1, -1]
    assert found.escalated.tolist() == [False, False, True]
    assert found.settled.tolist() == [False, False, True]


def test_what_every_source_said_is_kept_beside_what_settles_it() -> None:
    verdicts = (verdict("rule", False), verdict("verifier", True, 0.7), verdict("judge", None, 0.4))
    found = evidence(attempt("small", *verdicts), feedback=(said("user", True), said("human", False, after_s=5)))
    assert found.opinions[0].tolist() == [0, 1, -1, 1, 0]
    assert found.quality[0] == 0.0
    assert found.settled[0]
    assert not found.rule_only[0]


def test_sources_that_contradict_each_other_are_settled_by_rank_whatever_their_order() -> None:
    verdicts = [verdict("judge", False), verdict("user", True), verdict("rule", False), verdict("verifier", True)]
    for order in (verdicts, verdicts[::-1]):
        found = evidence(attempt("small", *order))
        assert found.quality[0] == 0.0
        assert not found.settled[0]


def test_every_tier_after_a_refusal_was_escalated_to() -> None:
    found = evidence(attempt("small", BAD), attempt("medium", BAD), attempt("large", GOOD))
    assert found.escalated.tolist() == [False, True, True]


def test_after_an_infrastructure_error_the_next_tier_was_not_escalated_to() -> None:
    found = evidence(attempt("small", error="timeout"), attempt("large", GOOD))
    assert found.escalated.tolist() == [False, False, False]


def test_a_later_word_undoes_no_escalation() -> None:
    found = evidence(attempt("small", BAD), attempt("large", GOOD), feedback=(said("human", True, tier="small"),))
    assert found.escalated.tolist() == [False, False, True]
    assert found.quality[0] == 1.0


def test_costs_and_tokens_are_those_of_the_tiers_that_answered() -> None:
    found = evidence(
        attempt("small", cost_usd=0.1, output_tokens=7), attempt("large", error="500", cost_usd=0.3, output_tokens=2)
    )
    np.testing.assert_array_equal(found.cost_usd, [0.1, UNKNOWN, UNKNOWN])
    np.testing.assert_array_equal(found.output_tokens, [7, UNKNOWN, UNKNOWN])


VERDICTS = st.builds(
    verdict,
    st.sampled_from(["rule", "verifier", "user", "judge", "check", "human"]),
    st.sampled_from([None, True, False]),
    st.none() | st.floats(0, 1),
)
ATTEMPTS = st.lists(
    st.builds(
        lambda tier, verdicts, error: attempt(tier, *verdicts, error=error),
        st.sampled_from([*TIERS, "gone"]),
        st.lists(VERDICTS, max_size=3),
        st.sampled_from([None, None, "timeout"]),
    ),
    max_size=5,
)


@given(ATTEMPTS, st.sampled_from(["live", "shadow", "audit"]))
def test_a_tier_that_never_answered_is_unknown_and_qualities_are_in_the_unit_interval(
    attempts: list[Attempt], mode: str
) -> None:
    found = evidence(*attempts, mode=mode)
    for i, tier in enumerate(TIERS):
        answered = [one for one in attempts if one.tier == tier and one.error is None]
        if not any(one.verdicts for one in answered):
            assert math.isnan(found.quality[i])
        assert math.isnan(found.quality[i]) or 0 <= found.quality[i] <= 1
    if (
        attempts
        and mode == "live"
        and attempts[0].tier in TIERS
        and len({one.tier for one in attempts}) == len(attempts)
    ):
        assert not found.escalated[TIERS.index(attempts[0].tier)]


def test_failures_that_only_a_rule_found_do_not_make_a_tier_look_worse_than_it_is() -> None:
    # 90 % adequate; rules see half of the failures, and 10 % of the other answers get a thumb.
    rng = np.random.default_rng(0)
    n = 20_000
    ok = rng.random(n) < 0.9
    refused = ~ok & (rng.random(n) < 0.5)
    thumbed = ~refused & (rng.random(n) < 0.1)
    quality = np.where(refused, 0.0, np.where(thumbed, ok, np.nan))[:, None]
    everyone = np.ones((n, 1), np.bool_)
    draw = rng.random((n, 1))
    assert np.nanmean(quality) < 0.7
    kept = thin_rule_refusals(quality, everyone, refused[:, None], np.zeros(n, np.int64), draw)
    assert np.nanmean(kept) == pytest.approx(0.9, abs=0.02)
    judged = np.where(ok, 1.0, 0.0)[:, None]
    same = thin_rule_refusals(judged, everyone, refused[:, None], np.zeros(n, np.int64), draw)
    assert same.tolist() == judged.tolist()


def test_a_rule_refusal_says_nothing_where_nobody_judged_the_other_answers_of_that_policy() -> None:
    quality = np.array([[0.0], [np.nan], [0.0], [1.0]])
    rule_only = np.array([[True], [False], [True], [False]])
    stratum = np.array([0, 0, 1, 1])
    kept = thin_rule_refusals(quality, np.ones((4, 1), np.bool_), rule_only, stratum, np.full((4, 1), 0.5))
    assert np.isnan(kept[0, 0])
    assert kept[2:, 0].tolist() == [0.0, 1.0]


RETRY = NOISY_SOURCES.index("retry")


def test_asking_again_labels_nothing_and_is_kept_as_an_opinion() -> None:
    found = evidence(attempt("small"), feedback=(said("retry", False, key="retry"),))
    assert math.isnan(found.quality[0])
    assert found.opinions[0, RETRY] == 0
    assert not found.rule_only[0]
    satisfied = evidence(attempt("small"), feedback=(said("retry", True),))
    assert satisfied.opinions[0, RETRY] == SILENT


def test_who_asks_again_and_then_says_that_it_was_good_is_believed() -> None:
    feedback = (said("user", True), said("retry", False, after_s=5.0))
    assert evidence(attempt("small"), feedback=feedback).quality[0] == 1.0


def opinions_of(retried: np.ndarray) -> np.ndarray:
    opinions = np.full((len(retried), 1, len(NOISY_SOURCES)), SILENT, np.int8)
    opinions[retried, 0, RETRY] = 0
    return opinions


def test_retries_are_kept_as_seldom_as_other_answers_are_judged() -> None:
    rng = np.random.default_rng(0)
    n = 20_000
    retried, known = rng.random(n) < 0.1, rng.random(n) < 0.2
    answered, draw = np.ones((n, 1), np.bool_), rng.random((n, 1))
    kept = thin_retries(opinions_of(retried), known[:, None], answered, np.zeros(n, np.int64), draw)
    assert (kept[retried, 0, RETRY] == 0).mean() == pytest.approx(0.2, abs=0.03)
    assert (kept[~retried] == SILENT).all()


def test_retries_say_nothing_where_nobody_judged_anything() -> None:
    retried = np.array([True, False, True])
    nobody, everyone = np.zeros((3, 1), np.bool_), np.ones((3, 1), np.bool_)
    stratum = np.zeros(3, np.int64)
    assert (thin_retries(opinions_of(retried), nobody, everyone, stratum, np.zeros((3, 1))) == SILENT).all()
    # Nor where only the decision was asked for: who did not ask again is not in the log at all.
    assert (thin_retries(opinions_of(retried), nobody, nobody, stratum, np.zeros((3, 1))) == SILENT).all()
