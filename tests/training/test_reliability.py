"""Sources: believed until measured, corrected once people judged the same answers; a verifier never labels."""

from __future__ import annotations

import numpy as np
import pytest

from router_ml_training.reliability import NOISY_SOURCES, SILENT, measure_reliability, soften

JUDGE, USER = NOISY_SOURCES.index("judge"), NOISY_SOURCES.index("user")
VERIFIER, RULE = NOISY_SOURCES.index("verifier"), NOISY_SOURCES.index("rule")
RETRY = NOISY_SOURCES.index("retry")


def silence(n: int) -> np.ndarray:
    return np.full((n, 1, len(NOISY_SOURCES)), SILENT, np.int8)


def judged(n: int, sensitivity: float, specificity: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 1)) < 0.6).astype(float)
    good = np.where(truth == 1, rng.random((n, 1)) < sensitivity, rng.random((n, 1)) >= specificity)
    opinions = silence(n)
    opinions[:, :, JUDGE] = good
    return truth, opinions


def test_a_judge_is_measured_on_what_people_judged_too() -> None:
    truth, opinions = judged(5000, 0.9, 0.7)
    found = measure_reliability(opinions, truth, np.ones_like(truth, bool))
    assert found.measured[JUDGE]
    assert found.sensitivity[JUDGE] == pytest.approx(0.9, abs=0.02)
    assert found.specificity[JUDGE] == pytest.approx(0.7, abs=0.02)
    assert not found.measured[USER]
    assert found.overlap.tolist() == [0, 0, 0, 0, 5000]


def test_few_common_answers_leave_trust_as_it_was() -> None:
    truth, opinions = judged(20, 0.5, 0.5)
    found = measure_reliability(opinions, truth, np.ones_like(truth, bool))
    assert not found.measured.any()
    quality = np.where(opinions[:, :, JUDGE] == 1, 1.0, 0.0)
    assert np.isnan(soften(quality, np.zeros_like(truth, bool), opinions, found)).all()


def test_a_measured_judge_is_evidence_and_people_settle() -> None:
    truth, opinions = judged(5000, 0.9, 0.7)
    reliability = measure_reliability(opinions, truth, np.ones_like(truth, bool))
    settled = np.arange(5000)[:, None] < 2500
    soft = soften(np.where(opinions[:, :, JUDGE] == 1, 1.0, 0.0), settled, opinions, reliability)
    assert np.isnan(soft[settled]).all()
    said_good = ~settled & (opinions[:, :, JUDGE] == 1)
    assert soft[said_good] == pytest.approx(0.9 / (0.9 + 0.3), abs=0.02)
    # What Bayes makes of it at the true rate of 0.6 is the share of good answers among those called good.
    odds = soft[said_good][0] / (1 - soft[said_good][0]) * 0.6 / 0.4
    assert odds / (1 + odds) == pytest.approx(truth[said_good].mean(), abs=0.02)


def test_a_source_that_guesses_says_nothing() -> None:
    truth, opinions = judged(20_000, 0.5, 0.5)
    reliability = measure_reliability(opinions, truth, np.ones_like(truth, bool))
    assert reliability.likelihood(opinions) == pytest.approx(0.5, abs=0.02)


def test_a_verifier_alone_is_a_hint_in_both_directions_and_silence_is_none() -> None:
    opinions = silence(3)
    opinions[:2, 0, VERIFIER] = (1, 0)
    unknown = np.full((3, 1), np.nan)
    nobody = np.zeros((3, 1), bool)
    soft = soften(unknown, nobody, opinions, measure_reliability(opinions, unknown, ~nobody))
    assert soft[:2, 0] == pytest.approx([0.75, 0.25])
    assert np.isnan(soft[2, 0])


def test_a_verifier_does_not_question_what_a_trusted_source_said() -> None:
    opinions = silence(1)
    opinions[0, 0, [VERIFIER, USER]] = (0, 1)
    nobody = np.zeros((1, 1), bool)
    reliability = measure_reliability(opinions, np.full((1, 1), np.nan), ~nobody)
    assert np.isnan(soften(np.ones((1, 1)), nobody, opinions, reliability)).all()


def test_a_rule_is_measured_by_what_it_let_pass_too() -> None:
    truth = np.repeat([1.0, 0.0], 100)[:, None]
    opinions = silence(200)
    opinions[100:140, 0, RULE] = 0  # it refuses 40 of the 100 bad answers, and 5 good ones
    opinions[:5, 0, RULE] = 0
    found = measure_reliability(opinions, truth, np.ones((200, 1), bool))
    assert found.measured[RULE]
    assert found.specificity[RULE] == pytest.approx((40 + 9.8) / 110)
    assert found.sensitivity[RULE] == pytest.approx((95 + 9.8) / 110)


def test_a_refusal_that_was_thinned_away_is_no_evidence() -> None:
    truth = np.repeat([1.0, 0.0], 100)[:, None]
    opinions = silence(200)
    opinions[100:140, 0, RULE] = 0
    reliability = measure_reliability(opinions, truth, np.ones((200, 1), bool))
    thinned = np.full((200, 1), np.nan)
    assert np.isnan(soften(thinned, np.zeros((200, 1), bool), opinions, reliability)).all()


def test_asking_again_is_weak_evidence_against_an_answer_until_it_is_measured() -> None:
    opinions = silence(2)
    opinions[0, 0, RETRY] = 0
    unknown, nobody = np.full((2, 1), np.nan), np.zeros((2, 1), bool)
    soft = soften(unknown, nobody, opinions, measure_reliability(opinions, unknown, ~nobody))
    assert soft[0, 0] == pytest.approx(1 / 3)
    assert np.isnan(soft[1, 0])


def test_a_few_retries_among_many_judged_answers_do_not_look_like_certainty() -> None:
    truth = np.repeat([1.0, 0.0], 1000)[:, None]
    opinions = silence(2000)
    opinions[1000:1010, 0, RETRY] = 0
    found = measure_reliability(opinions, truth, np.ones((2000, 1), bool))
    assert not found.measured[RETRY]
    assert (found.sensitivity[RETRY], found.specificity[RETRY]) == (0.95, 0.10)


def test_retries_that_people_judged_too_are_worth_what_they_were_worth() -> None:
    truth = np.repeat([1.0, 0.0], 1000)[:, None]
    opinions = silence(2000)
    opinions[:100, 0, RETRY] = 0  # after 10 % of the good answers, and 40 % of the bad ones
    opinions[1000:1400, 0, RETRY] = 0
    found = measure_reliability(opinions, truth, np.ones((2000, 1), bool))
    assert found.measured[RETRY]
    assert found.overlap[RETRY] == 500
    assert found.likelihood(opinions[0, 0]) == pytest.approx(0.1 / 0.5, abs=0.01)


def test_what_a_trusted_source_said_is_not_questioned_by_asking_again() -> None:
    opinions = silence(1)
    opinions[0, 0, [RETRY, USER]] = (0, 1)
    nobody = np.zeros((1, 1), bool)
    reliability = measure_reliability(opinions, np.full((1, 1), np.nan), ~nobody)
    assert np.isnan(soften(np.ones((1, 1)), nobody, opinions, reliability)).all()
