"""Plans on known outcomes: by hand, and a spread that is right for an honest verifier and 0 for a noisy one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.bundle import Scores
from router_ml.constraints import Context, Needs
from router_ml.ladder import Ladder, Tier
from router_ml.policy import Knobs, decide
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.plans import (
    CostUpdate,
    Judged,
    act,
    act_alone,
    fit_cost_update,
    fit_spread,
    grid_of,
    known_posterior,
    on_hull,
)


def by_hand() -> tuple[Judged, Outcomes]:
    adequacy = np.array([[0.6, 0.9], [0.6, 0.9], [0.05, 0.9], [0.95, 0.96]])
    cost = np.tile([0.1, 1.0], (4, 1))
    after_small = np.array([[0.99, 0.97], [0.1, 0.8], [0.01, 0.9], [0.95, 0.96]])
    posterior = np.stack([after_small, adequacy], axis=1)
    quality = np.array([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    return Judged(adequacy, cost, posterior, np.array([[0.0, 0.4], [0.0, 0.0]])), Outcomes(quality, cost, best=1)


def test_what_is_promising_is_tried_what_is_poor_is_escalated_and_what_is_hopeless_goes_straight_up() -> None:
    judged, outcomes = by_hand()
    taken = act(judged, 0.3)
    assert taken.first.tolist() == [0, 0, 1, 0]
    assert taken.last.tolist() == [0, 1, 1, 0]
    assert taken.escalated.tolist() == [False, True, False, False]
    assert taken.quality(outcomes).tolist() == [1, 1, 1, 1]
    assert taken.cost(outcomes) == pytest.approx([0.1, 1.1, 1.0, 0.1])
    assert taken.rows(np.array([1])).cost(outcomes.__class__(outcomes.quality[1:2], outcomes.cost[1:2])) == 1.1


@given(st.integers(0, 10_000), st.floats(0, 5), st.floats(0, 0.6))
def test_rows_go_where_the_router_would_send_them(seed: int, price: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    tiers = [Tier(name=f"t{i}", model="m", input_usd_per_mtok=10.0**i, output_usd_per_mtok=0) for i in range(3)]
    ladder, spreads = Ladder.of(tiers), np.triu(np.full((3, 3), spread), 1)
    adequacy, posterior = rng.random((5, 3)), rng.random((5, 3, 3))
    cost = np.tile(ladder.costs_usd(10_000.0, np.zeros(3)), (5, 1))
    taken = act(Judged(adequacy, cost, posterior, spreads), price)
    knobs = Knobs(0.97, price, 0.0, 2, "t2", "t2", spread=tuple(map(tuple, spreads.tolist())))
    for i in range(5):
        scores = Scores(adequacy[i], np.zeros(3), 10_000.0)
        choice = decide(
            scores, ladder, knobs, Needs(10_000.0, 0.0), Context(), np.random.default_rng(0), in_distribution=True
        )
        last, then = choice.index, choice.escalate_to
        if then is not None and posterior[i, last, then] - price * cost[i, then] > posterior[i, last, last]:
            last = then
        assert (taken.first[i], taken.last[i]) == (choice.index, last)


def test_a_grid_holds_what_was_done_at_every_price() -> None:
    judged, outcomes = by_hand()
    prices = np.array([10.0, 0.3])
    grid = grid_of(prices, [act(judged, price) for price in prices], outcomes)
    points = grid.trace(outcomes, np.ones((1, 4)))
    assert points.quality[0] == pytest.approx([0.5, 1.0])
    assert points.cost[0] == pytest.approx([0.1, (0.1 + 1.1 + 1.0 + 0.1) / 4])


@given(st.integers(0, 10_000), st.floats(0, 100))
def test_with_a_verifier_that_says_nothing_plans_are_single_attempts(seed: int, price: float) -> None:
    rng = np.random.default_rng(seed)
    adequacy, cost = rng.random((20, 3)), np.cumsum(rng.random((20, 3)) + 0.01, axis=1)
    judged = Judged(adequacy, cost, np.repeat(adequacy[:, None], 3, axis=1), np.zeros((3, 3)))
    alone = act_alone(adequacy, cost, price)
    taken = act(judged, price)
    assert taken.first.tolist() == taken.last.tolist() == alone.last.tolist()


def posteriors(n: int, resolved: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances of two tiers, what an honest verifier that knows a share of the truth says, and what came out."""
    rng = np.random.default_rng(seed)
    adequacy = np.stack([rng.uniform(0.3, 0.9, n), np.full(n, 0.9)], axis=1)
    # v is q plus a mean-zero step of a known share of the outcome's variance; it stays within [0, 1].
    step = resolved * np.sqrt(adequacy[:, 0] * (1 - adequacy[:, 0])) * rng.choice([-1.0, 1.0], n)
    small = np.clip(adequacy[:, 0] + step, 0, 1)
    quality = np.stack([rng.random(n) < small, rng.random(n) < 0.9], axis=1).astype(float)
    after = np.stack([small, adequacy[:, 1]], axis=1)
    return adequacy, np.stack([after, adequacy], axis=1), quality


def test_the_spread_of_an_honest_verifier_is_what_it_moves() -> None:
    spread = fit_spread(*posteriors(40_000, 0.4))
    assert spread[0, 1] * np.pi / np.sqrt(3) == pytest.approx(0.4, rel=0.05)
    assert not spread[1].any()
    assert spread[0, 0] == 0


def test_a_verifier_that_moves_at_random_has_hardly_any_spread() -> None:
    adequacy, posterior, quality = posteriors(40_000, 0.4)
    shuffled = np.random.default_rng(1).permutation(len(quality))
    noise = posterior.copy()
    noise[:, 0] += (posterior[:, 0] - adequacy)[shuffled] - (posterior[:, 0] - adequacy)
    assert fit_spread(adequacy, noise, quality)[0, 1] < 0.05


def test_unknown_answers_and_outcomes_are_left_out_and_too_few_give_no_spread() -> None:
    adequacy, posterior, quality = posteriors(20_000, 0.4)
    posterior[::2, 0] = np.nan
    quality[::3, 1] = np.nan
    assert fit_spread(adequacy, posterior, quality)[0, 1] * np.pi / np.sqrt(3) == pytest.approx(0.4, rel=0.07)
    posterior[99:, 0] = np.nan
    assert fit_spread(adequacy, posterior, quality)[0, 1] == 0


def test_an_answer_that_a_check_refuses_is_never_kept() -> None:
    adequacy, cost = np.tile([0.9, 0.91, 0.95], (4, 1)), np.tile([0.1, 0.3, 2.0], (4, 1))
    posterior = np.repeat(adequacy[:, None], 3, axis=1)
    posterior[:, 0, 0] = 0.99  # the verifier likes what the check refuses
    refused = np.array([[True, False, False], [False, True, True], [False] * 3, [True] * 3])
    spreads = [np.zeros((3, 3)), np.zeros((3, 3))]
    spreads[1][0, 2] = 0.9
    for spread, then in zip(spreads, (1, 2), strict=True):
        judged = Judged(adequacy, cost, posterior, spread, refused=refused)
        taken = act(judged, 0.1)
        assert taken.first.tolist() == [0, 0, 0, 0]
        assert taken.last.tolist() == [then, 0, 0, then]
        assert act(judged.rows(np.array([2, 3])), 0.1).last.tolist() == [0, then]
    alone = act_alone(adequacy, cost, 0.1, refused)
    assert alone.first.tolist() == [0, 0, 0, 0]
    assert alone.last.tolist() == [1, 0, 0, 1]
    dearest = act_alone(adequacy, cost, 0.0, refused)
    assert dearest.last.tolist() == dearest.first.tolist() == [2, 2, 2, 2]
    assert not act_alone(adequacy, cost, 0.1).escalated.any()


def test_a_verifier_that_can_hardly_be_checked_counts_for_less() -> None:
    adequacy, posterior, quality = posteriors(20_000, 0.4)
    checked = fit_spread(adequacy, posterior, quality)[0, 1]
    quality[25:, 1] = np.nan
    assert fit_spread(adequacy, posterior, quality)[0, 1] == pytest.approx(0.5 * checked, rel=0.05)
    quality[:, 1] = np.nan
    assert fit_spread(adequacy, posterior, quality)[0, 1] == 0


def test_plans_are_made_of_the_tiers_that_are_named() -> None:
    adequacy, posterior, quality = posteriors(2000, 0.4)
    wide = np.stack([posterior[:, 0], posterior[:, 0], posterior[:, 1]], axis=1)
    three = np.concatenate([adequacy[:, :1], adequacy], axis=1)
    after = np.concatenate([wide[:, :, :1], wide], axis=2)
    spread = fit_spread(three, after, np.concatenate([quality[:, :1], quality], axis=1), [0, 2])
    assert spread[0, 2] > 0
    assert np.count_nonzero(spread) == 1


def test_where_an_answer_is_unknown_the_opinion_before_it_stands() -> None:
    adequacy = np.array([[0.2, 0.4]])
    posterior = np.array([[[0.9, 0.5], [np.nan, 0.1]]])
    filled, known = known_posterior(adequacy, posterior)
    assert filled.tolist() == [[[0.9, 0.5], [0.2, 0.4]]]
    assert known.tolist() == [[True, False]]


def test_plans_are_made_of_tiers_that_no_mix_of_others_beats() -> None:
    quality = np.array([[0.4, 0.38, 0.7, 0.9], [np.nan, 0.38, 0.7, 0.9]])
    cost = np.array([[1.0, 2.0, 2.5, 10.0], [1.0, 2.0, np.nan, 10.0]])
    assert on_hull(quality, cost).tolist() == [0, 2, 3]


def test_the_cost_of_one_answer_foretells_the_next_as_measured() -> None:
    rng = np.random.default_rng(0)
    expected = np.tile([1e-4, 2e-3], (20_000, 1))
    length = rng.normal(0, 0.5, 20_000)
    bent = 0.6 * length + 0.2 * length**2
    spent = expected * np.exp(np.stack([length, bent + rng.normal(0, 0.2, 20_000)], axis=1))
    update = fit_cost_update(spent, expected)
    assert update.elasticity[0, 1] == pytest.approx(0.6, abs=0.02)
    assert update.curvature[0, 1] == pytest.approx(0.2, abs=0.02)
    later = update.later(expected, spent, expected)
    assert later[:, 0, 1].mean() == pytest.approx(spent[:, 1].mean())
    assert np.corrcoef(later[:, 0, 1], spent[:, 1])[0, 1] > 0.75
    assert (later[:, 1] == expected).all()
    assert (later[:, :, 0] == expected[:, :1]).all()


def test_an_answer_far_longer_than_expected_makes_escalation_too_dear() -> None:
    judged, _ = by_hand()
    update = CostUpdate(np.array([[0.0, 1.0], [0.0, 0.0]]), np.zeros((2, 2)), np.zeros((2, 2)))
    spent = np.array([[0.1, np.nan], [0.5, np.nan], [0.1, np.nan], [0.1, np.nan]])
    later = update.later(judged.cost, spent, judged.cost)
    assert later[1, 0, 1] == pytest.approx(5.0)
    taken = act(Judged(judged.adequacy, judged.cost, judged.posterior, judged.spread, later), 0.3)
    assert taken.last.tolist() == [0, 0, 1, 0]


def test_what_was_measured_goes_into_the_policy_and_comes_back() -> None:
    judged, _ = by_hand()
    elasticity, shift, curvature = (np.array([[0.0, value], [0.0, 0.0]]) for value in (0.7, 0.1, -0.2))
    update = CostUpdate(elasticity, shift, curvature)
    spec = Judged(judged.adequacy, judged.cost, judged.posterior, judged.spread, None, update).spec()
    again = CostUpdate.of(spec)
    assert again is not None
    assert (np.array(spec.spread) == judged.spread).all()
    assert (again.elasticity == update.elasticity).all()
    assert (again.shift == update.shift).all()
    assert (again.curvature == update.curvature).all()
    older = CostUpdate.of(spec.model_copy(update={"curvature": None}))
    assert older is not None
    assert not older.curvature.any()
    assert CostUpdate.of(judged.spec()) is None
