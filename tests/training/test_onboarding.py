"""A new tier's head: what it learns from few labels, what it refuses to believe, and that order does not matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from router_ml_training.onboarding import (
    Answers,
    NewTierHead,
    cross_fit,
    fit_head,
    fit_lengths,
    logits_of,
    standardised,
)


def answers_of(n: int, seed: int, *, leak: float = 0.0, labels: str = "stack") -> tuple[Answers, np.ndarray]:
    """Rows whose truth is known: two tiers with logits from one difficulty, the new tier between them.

    With `leak`, the bundle's scores know part of what the other tiers did, as on rows it was trained on.
    """
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.0, 1.0, n)
    dense = np.stack([ease + rng.normal(0.0, 2.0, n), rng.normal(0.0, 1.0, n), np.ones(n)], axis=1).astype(np.float32)
    honest = expit(np.stack([ease - 0.5, ease + 1.0], axis=1))
    known = (rng.random((n, 2)) < honest).astype(float)
    truth = expit(1.2 * ease + 0.3) if labels == "stack" else np.full(n, 0.6)
    adequacy = expit(logit(honest) + leak * (known - honest))
    target = (rng.random(n) < truth).astype(float)
    return Answers(adequacy, known, dense, target, np.arange(n)), truth


def test_the_head_finds_the_truth_from_300_labels() -> None:
    answers, _ = answers_of(300, 0)
    fresh, truth = answers_of(4000, 1)
    found = fit_head(answers).probability(fresh.adequacy, fresh.dense)
    assert np.abs(found - truth).mean() < 0.06
    assert np.corrcoef(found, truth)[0, 1] > 0.97


def test_more_labels_are_better() -> None:
    fresh, truth = answers_of(4000, 1)
    errors = [
        np.abs(fit_head(answers_of(n, 0)[0]).probability(fresh.adequacy, fresh.dense) - truth).mean()
        for n in (60, 600, 6000)
    ]
    assert errors[2] < errors[1] < errors[0]


def test_scores_that_have_seen_the_outcomes_are_trusted_no_more_than_honest_ones() -> None:
    fresh, truth = answers_of(4000, 1)
    honest, leaking = (
        np.mean(
            [
                np.abs(fit_head(answers_of(300, seed, leak=leak)[0]).probability(fresh.adequacy, fresh.dense) - truth)
                for seed in range(5)
            ]
        )
        for leak in (0.0, 1.0)
    )
    assert leaking < honest + 0.02


def test_the_mean_of_the_head_is_the_observed_one() -> None:
    answers, _ = answers_of(300, 3)
    for learned in (True, False):
        found = fit_head(answers, learned=learned).probability(answers.adequacy, answers.dense)
        assert found.mean() == pytest.approx((answers.target.sum() + 0.5) / 301, abs=1e-6)
    assert np.ptp(found) < 1e-9


def test_outcomes_of_other_tiers_may_be_unknown() -> None:
    answers, _ = answers_of(400, 4)
    blind = Answers(answers.adequacy, np.full((400, 2), np.nan), answers.dense, answers.target, answers.group)
    fresh, truth = answers_of(4000, 1)
    found = fit_head(blind).probability(fresh.adequacy, fresh.dense)
    assert np.abs(found - truth).mean() < 0.07


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=3, deadline=None)
def test_the_order_of_the_rows_changes_nothing(seed: int) -> None:
    answers, _ = answers_of(120, 5)
    order = np.random.default_rng(seed).permutation(120)
    one, other = fit_head(answers), fit_head(answers.rows(order))
    np.testing.assert_allclose(other.slopes, one.slopes, atol=1e-4)
    np.testing.assert_allclose(other.columns, one.columns, atol=1e-4)
    straight, mixed = cross_fit(answers, seed=0), cross_fit(answers.rows(order), seed=0)
    np.testing.assert_allclose(mixed.probability, straight.probability[order], atol=1e-4)
    assert mixed.loss == pytest.approx(straight.loss, abs=1e-5)


def test_cross_fitting_tells_whether_anything_was_learned() -> None:
    learned = cross_fit(answers_of(300, 6)[0], seed=0)
    assert learned.learned
    assert learned.loss < learned.constant_loss
    assert learned.loss < learned.neighbour_loss + 0.01
    nothing, _ = answers_of(300, 6, labels="noise")
    flat = cross_fit(nothing, seed=0)
    assert flat.loss > flat.constant_loss - 0.02
    if not flat.learned:
        assert np.ptp(flat.probability) < 0.1


def test_columns_are_standardised_without_nan_or_infinity() -> None:
    dense = np.array([[np.nan, 1e30], [0.0, -1e30]], np.float32)
    ones = np.ones(2, np.float32)
    scaled = standardised(dense, np.zeros(2, np.float32), ones)
    np.testing.assert_array_equal(scaled, [[0.0, 4.0], [0.0, -4.0]])
    head = NewTierHead(ones, np.zeros(2, np.float32), np.zeros(2, np.float32), ones, 0.0)
    found = head.probability(np.array([[0.0, 0.5], [1.0, 0.5]]), dense)
    np.testing.assert_allclose(found, [1e-3, 1 - 1e-3])
    assert np.isfinite(logits_of(np.array([[0.0, 1.0]]))).all()


def test_answer_lengths_follow_the_tier_they_resemble() -> None:
    rng = np.random.default_rng(0)
    expected = np.exp(rng.normal(5.0, 1.0, (100, 2)))
    seen = expected[:, 1] * 3.0 * np.exp(rng.normal(0.0, 0.05, 100))
    seen[:10] = np.nan
    lengths = fit_lengths(seen, expected, default=0)
    assert (lengths.of, lengths.n_rows) == (1, 90)
    assert lengths.ratio == pytest.approx(3.0, rel=0.05)


def test_with_too_few_lengths_the_neighbours_stand() -> None:
    seen = np.full(100, np.nan)
    seen[:19] = 50.0
    lengths = fit_lengths(seen, np.full((100, 2), 100.0), default=1)
    assert (lengths.of, lengths.ratio, lengths.n_rows) == (1, 1.0, 19)
