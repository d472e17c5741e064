"""Slices: Holm as in its paper, small slices left out, and no false certificate among many bad slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from router_ml_training.evaluation.certificate import Candidate
from router_ml_training.evaluation.certificate_slices import SliceResult, certify_slices, holm
from router_ml_training.evaluation.outcomes import Outcomes


def test_holm_rejects_step_by_step_and_stops_at_the_first_that_stays() -> None:
    assert holm({"a": 0.001, "b": 0.02, "c": 0.03}, 0.05) == {"a", "b", "c"}
    assert holm({"a": 0.02, "b": 0.02, "c": 0.02}, 0.05) == set()
    assert holm({"a": 0.001, "b": 0.04, "c": 0.03}, 0.05) == {"a"}
    assert holm({}, 0.05) == set()


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=6))
def test_holm_rejects_no_less_than_bonferroni_and_no_more_than_each_test_alone(p_values: dict[str, float]) -> None:
    found = holm(p_values, 0.05)
    assert {name for name, p in p_values.items() if p <= 0.05 / len(p_values)} <= found
    assert found <= {name for name, p in p_values.items() if p <= 0.05}


def always_small(n: int, rng: np.random.Generator, loss: np.ndarray) -> tuple[Outcomes, Candidate]:
    """Large is always right, small fails with the probability of each row."""
    known = Outcomes(np.column_stack((rng.random(n) >= loss, np.ones(n))), np.tile([1.0, 10.0], (n, 1)), best=1)
    return known, Candidate(0.97, 1.0, known.quality[:, 0], known.cost[:, 0])


def run(loss: np.ndarray, slices: dict[str, np.ndarray], seed: int = 0) -> dict[str, SliceResult]:
    rng = np.random.default_rng(seed)
    known, candidate = always_small(len(loss), rng, loss)
    return {one.name: one for one in certify_slices(known, [candidate], slices, rng=rng)}


def test_a_bad_slice_is_found_a_good_one_is_certified_and_a_small_one_is_left_out() -> None:
    n = 2000
    bad, few = np.arange(n) < 500, np.arange(n) >= n - 20
    found = run(np.where(bad, 0.2, 0.01), {"bad": bad, "good": ~bad, "few": few})
    assert {name: one.status for name, one in found.items()} == {
        "bad": "not certified",
        "good": "certified",
        "few": "too few",
    }
    assert abs(found["bad"].loss - 0.2) < 0.06
    assert found["good"].saving == 0.9
    assert (found["few"].n_rows, found["few"].p_value) == (20, None)


def test_among_many_slices_that_lose_too_much_seldom_any_is_certified() -> None:
    wrong = 0
    part = np.arange(1500) % 5
    for seed in range(120):
        found = run(np.full(1500, 0.071), {f"slice {i}": part == i for i in range(5)}, seed)
        wrong += any(one.status == "certified" for one in found.values())
    assert wrong <= binom.ppf(0.99, 120, 0.05)


def test_a_walk_that_ends_where_a_slice_was_lucky_does_not_certify_it() -> None:
    # Twelve policies that all lose 7.05 % of the slice, each by its own noise; the walk ends at the last of them.
    wrong, n = 0, 1500
    slices = {"part": np.arange(n) < 700}
    for seed in range(120):
        rng = np.random.default_rng(seed)
        large = np.ones(n)
        known = Outcomes(np.column_stack((large, large)), np.tile([1.0, 10.0], (n, 1)), best=1)
        losses = [(rng.random(n) >= 0.0705).astype(float) for _ in range(12)]
        walked = [Candidate(0.97, 1.0, one, known.cost[:, 0]) for one in losses]
        # Whoever looks for the end of the walk that flatters the slice finds none.
        ends = [certify_slices(known, walked[:end], slices, rng=np.random.default_rng(seed)) for end in (1, 4, 12)]
        wrong += any(one[0].status == "certified" for one in ends)
    assert wrong <= binom.ppf(0.99, 120, 0.05)
