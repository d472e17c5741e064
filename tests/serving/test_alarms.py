"""The sequential test: as seldom wrong as promised, whenever one looks, and quick where something is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router_ml_serving.alarms import Rate, RiseTest, grown, stakes

ALPHA = 0.01
# Per metric: four of them share alpha.
STRICT = ALPHA / 4


def played(
    *, champion: float, rise: float, margin: float, share: float, requests: int, sims: int, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Play many streams at once.

    Returns:
        The largest e-value of each, shape (sims,); how many requests, and how many of them the challenger's, it took
        to reach 1 / STRICT (infinity: it never did).
    """
    rng = np.random.default_rng(seed)
    wealth, largest = np.ones((sims, stakes(margin).size)), np.ones(sims)
    used, ours = np.zeros(sims), np.zeros(sims)
    at, ours_at = np.full(sims, np.inf), np.full(sims, np.inf)
    while (used < requests).any():
        # A block is a run of one side and the first outcome of the other.
        first = rng.random(sims) < share
        run = np.where(first, rng.geometric(1 - share, sims), rng.geometric(share, sims))
        n_ours, n_theirs = np.where(first, run, 1), np.where(first, 1, run)
        difference = rng.binomial(n_ours, champion + rise) / n_ours - rng.binomial(n_theirs, champion) / n_theirs
        wealth[used < requests] = grown(wealth, difference, margin)[used < requests]
        used, ours = used + run + 1, ours + n_ours
        largest = np.maximum(largest, wealth.mean(axis=1))
        found = (largest >= 1 / STRICT) & np.isinf(at)
        at[found], ours_at[found] = used[found], ours[found]
        if np.isfinite(at).all():
            break
    return largest, at, ours_at


@pytest.mark.parametrize(
    ("champion", "share", "margin"),
    [(0.02, 0.5, 0.0), (0.02, 0.1, 0.02), (0.2, 0.5, 0.02), (0.2, 0.1, 0.0), (0.2, 0.1, 0.05), (0.5, 0.9, 0.03)],
)
def test_at_the_boundary_10_000_requests_raise_a_false_alarm_no_more_often_than_promised(
    champion: float, share: float, margin: float
) -> None:
    # At the boundary: the challenger is worse by exactly what is allowed.
    sims = 1_000
    largest, _, _ = played(
        champion=champion, rise=margin, margin=margin, share=share, requests=10_000, sims=sims, seed=1
    )
    for alpha in (0.1, ALPHA):
        wrong = np.count_nonzero(largest >= 1 / alpha)
        # Three standard errors of a binomial count above its mean.
        assert wrong <= sims * alpha + 3 * np.sqrt(sims * alpha * (1 - alpha))


@pytest.mark.parametrize(
    ("champion", "rise", "margin", "share", "half", "most"),
    [
        # Champion's rate, rise, margin, challenger's share; challenger's requests until half, and 90 %, are found.
        (0.02, 0.10, 0.01, 0.1, 200, 350),
        (0.05, 0.10, 0.02, 0.1, 300, 550),
        (0.20, 0.10, 0.03, 0.1, 800, 1500),
        (0.20, 0.20, 0.03, 0.1, 180, 320),
        (0.02, 0.10, 0.01, 0.5, 350, 600),
        (0.02, 0.98, 0.01, 0.1, 15, 15),
    ],
)
def test_a_rise_is_found_within_some_hundred_requests(
    champion: float, rise: float, margin: float, share: float, half: int, most: int
) -> None:
    _, _, ours = played(champion=champion, rise=rise, margin=margin, share=share, requests=100_000, sims=300, seed=2)
    assert np.quantile(ours, 0.5) <= half
    assert np.quantile(ours, 0.9) <= most


def test_rates_that_drift_together_raise_no_alarm() -> None:
    rng, sims = np.random.default_rng(3), 1_000
    wealth, largest = np.ones((sims, stakes(0.0).size)), np.ones(sims)
    for block in range(4_000):
        rate = 0.3 + 0.29 * np.sin(block / 200)
        difference = rng.binomial(1, rate, sims) - rng.binomial(9, rate, sims) / 9
        wealth = grown(wealth, difference, 0.0)
        largest = np.maximum(largest, wealth.mean(axis=1))
    assert np.mean(largest >= 10) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / sims)


@given(champion=st.floats(0, 1), margin=st.floats(0, 1), rise=st.floats(-1, 1), n=st.integers(1, 20))
def test_no_stake_can_expect_to_grow_in_a_block_while_the_null_holds(
    champion: float, margin: float, rise: float, n: int
) -> None:
    challenger = min(max(champion + min(rise, margin), 0.0), 1.0)
    k = np.arange(n + 1)
    log_binomial = np.array([sum(np.log((n - i) / (i + 1)) for i in range(j)) for j in k])
    weight = np.exp(log_binomial) * champion**k * (1 - champion) ** (n - k)
    expected = sum(
        (weight[:, None] * grown(np.ones((n + 1, stakes(margin).size)), bad - k / n, margin)).sum(axis=0) * chance
        for bad, chance in ((1, challenger), (0, 1 - challenger))
    )
    assert (np.asarray(expected) <= 1 + 1e-9).all()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200), st.floats(0, 0.5))
def test_the_stream_is_cut_into_blocks_that_have_both_sides(outcomes: list[tuple[bool, bool]], margin: float) -> None:
    test, wealth, largest = RiseTest(margin), np.ones(stakes(margin).size), 1.0
    theirs: list[bool] = []
    ours: list[bool] = []
    for is_challenger, bad in outcomes:
        if is_challenger:
            test.of_challenger(bad=bad)
        else:
            test.of_champion(1, int(bad))
        (ours if is_challenger else theirs).append(bad)
        if ours and theirs:
            wealth = grown(wealth, float(np.mean(ours) - np.mean(theirs)), margin)
            largest = max(largest, float(wealth.mean()))
            ours, theirs = [], []
    assert test.e_value == pytest.approx(float(wealth.mean()))
    assert test.largest == pytest.approx(largest)
    assert test.challenger.n == sum(one for one, _ in outcomes)
    assert test.champion.bad == sum(bad for one, bad in outcomes if not one)


def test_without_outcomes_there_is_no_evidence_and_no_rate() -> None:
    test = RiseTest(0.02)
    assert (test.e_value, test.largest) == (1.0, 1.0)
    assert test.to_dict()["champion"] == {"n": 0, "bad": 0, "rate": None}
    test.of_challenger(bad=True)
    assert test.e_value == 1.0
    assert Rate(4, 1).value == 0.25
