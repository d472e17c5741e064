"""Certificates from partial logs: estimates without bias, within their bounds, seldom wrong, and worth their chains."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from router_ml.errors import DataError
from router_ml_training.evaluation.bounds import betting_e_value
from router_ml_training.evaluation.certificate_partial import KeptColumn, PartialLog, certify_partial, rectified

NOW = datetime(2026, 3, 1, tzinfo=UTC)
RHO = 0.1
Floats = np.ndarray


def truth(n: int, rng: np.random.Generator, *, harm: float, gain: float) -> Floats:
    """Large is right on 80 %; small fails on `harm` of all requests where it is, and is right on `gain` where not."""
    large = rng.random(n) < 0.8
    u = rng.random(n)
    small = np.where(large, u >= harm / 0.8, u < gain / 0.2)
    return np.column_stack((small, large)).astype(float)


def seen(
    full: Floats, rng: np.random.Generator, kind: str, *, rho: float = RHO, up: float = 0.0, best: int = 1
) -> PartialLog:
    """Show of the truth what chains (large first with probability `up`), or even draws, and audits would show."""
    n = len(full)
    audited = rng.random(n) < rho
    first = np.tile([1.0 - up, up] if kind == "chain" else [0.5, 0.5], (n, 1))
    tried = (rng.random(n) < first[:, 1]).astype(np.intp)
    hides_large = (tried == 0) & ((full[:, 0] == 1.0) | (kind == "draw"))
    quality = full.copy()
    quality[~audited & hides_large, 1] = np.nan
    quality[~audited & (tried == 1), 0] = np.nan
    guess = np.tile([0.8, 0.75], (n, 1))  # wrong on purpose
    return PartialLog(quality, guess, audited, rho, first, tried, "chain" if kind == "chain" else "draw", best)


def wealth(log: PartialLog, kept: Floats) -> float:
    values, largest = rectified(log, kept, allowed_loss=0.03)
    return betting_e_value(values, allowed_loss=0.03, confidence=0.95, arm=log.arm, largest=largest)


@pytest.mark.parametrize(("kind", "up"), [("chain", 0.0), ("chain", 0.2), ("draw", 0.0)])
def test_estimates_are_right_on_average_although_the_predictions_are_wrong(kind: str, up: float) -> None:
    rng, small = np.random.default_rng(0), np.zeros(1000, np.intp)
    means, expected = [], []
    for _ in range(300):
        full = truth(1000, rng, harm=0.1, gain=0.05)
        log = seen(full, rng, kind, up=up)
        means.append(rectified(log, small, allowed_loss=0.03)[0].mean())
        expected.append((0.97 * full[:, 1] - full[:, 0]).mean())
    difference = np.array(means) - np.array(expected)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(300)


def test_a_log_that_is_audited_throughout_is_taken_as_it_is() -> None:
    full = truth(200, np.random.default_rng(1), harm=0.1, gain=0.05)
    for kind in ("chain", "draw"):
        log = seen(full, np.random.default_rng(2), kind, rho=1.0)
        found, _ = rectified(log, np.zeros(200, np.intp), allowed_loss=0.03)
        assert found == pytest.approx(0.97 * full[:, 1] - full[:, 0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 9999),
    st.sampled_from(["chain", "draw"]),
    st.floats(0.0, 0.5),
    st.floats(0.1, 1.0),
    st.sampled_from([0, 1]),
)
def test_no_estimate_exceeds_its_bound(seed: int, kind: str, up: float, rho: float, best: int) -> None:
    rng = np.random.default_rng(seed)
    full = truth(120, rng, harm=0.5, gain=0.2)
    log = seen(full, rng, kind, up=up, rho=rho, best=best)
    found, largest = rectified(log, rng.integers(0, 2, 120), allowed_loss=0.03)
    for arm, bound in enumerate(largest):
        assert found[log.arm == arm].max(initial=-np.inf) <= bound + 1e-9


@pytest.mark.parametrize(("kind", "up"), [("chain", 0.0), ("chain", 0.2), ("draw", 0.0)])
def test_what_loses_a_hair_too_much_is_seldom_certified_whenever_one_stops(kind: str, up: float) -> None:
    # Always small loses (0.0642 - 0.04) / 0.8 = 3.02 %. The wealth is the largest on the way: any stopping counts.
    wrong = 0
    for seed in range(250):
        rng = np.random.default_rng(seed)
        log = seen(truth(800, rng, harm=0.0642, gain=0.04), rng, kind, up=up)
        wrong += wealth(log, np.zeros(800, np.intp)) >= 20.0
    assert wrong <= binom.ppf(0.99, 250, 0.05)


def test_chains_find_what_their_audits_alone_do_not() -> None:
    by_chains = by_audits = 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        full = truth(4000, rng, harm=0.04, gain=0.04)
        log = seen(full, rng, "chain")
        by_chains += wealth(log, np.zeros(4000, np.intp)) >= 20.0
        shortfall = (0.97 * full[:, 1] - full[:, 0])[log.audited]
        by_audits += betting_e_value(shortfall, allowed_loss=0.03, confidence=0.95) >= 20.0
    assert by_chains >= by_audits + 10


def test_a_reference_that_is_the_cheapest_tier_can_be_bet_on() -> None:
    rng = np.random.default_rng(0)
    n = 1500
    full = np.column_stack((rng.random(n) < 0.85, rng.random(n) < 0.8)).astype(float)
    log = seen(full, rng, "chain", rho=0.05, best=0)
    assert wealth(log, np.ones(n, np.intp)) >= 1.0


def walk(log: PartialLog, *kept: Floats, groups: Floats | None = None) -> tuple[int, list[float]]:
    candidates = [KeptColumn(1 - 0.01 * i, float(i), one, np.where(one, 10.0, 1.0)) for i, one in enumerate(kept, 1)]
    found = certify_partial(
        log,
        candidates,
        best_cost=np.full(log.n, 10.0),
        tiers=("small", "large"),
        date=NOW,
        rng=np.random.default_rng(0),
        groups=groups,
        draws=50,
    )
    assert found.evidence == "chains and audits"
    assert (found.n_rows, found.best_tier) == (log.n, "large")
    return found.index, [step.loss for step in found.steps]


def test_the_walk_goes_up_to_the_first_policy_that_is_not_proven() -> None:
    rng = np.random.default_rng(5)
    n = 4000
    full = truth(n, rng, harm=0.2, gain=0.02)
    log = seen(full, rng, "chain")
    cautious = np.where(np.arange(n) < 0.02 * n, 0, 1).astype(np.intp)
    index, losses = walk(log, cautious, np.zeros(n, np.intp), cautious)
    assert index == 1
    assert losses[2] == pytest.approx((0.2 - 0.02) / 0.8, abs=0.05)
    assert walk(log, cautious, groups=np.arange(n) // 4)[0] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"audited": np.zeros(4, np.bool_)}, "a certificate needs audits"),
        ({"audit_share": 0.0}, "a certificate needs audits"),
        ({"predicted": np.zeros((4, 3))}, "one shape"),
        ({"tried": np.zeros(3, np.intp)}, r"must have shape \(4,\)"),
        ({"quality": np.full((4, 2), 5.0)}, r"\[0, 1\]"),
    ],
)
def test_a_log_that_no_estimate_can_be_made_from_is_refused(change: dict[str, object], said: str) -> None:
    base = {
        "quality": np.ones((4, 2)),
        "predicted": np.ones((4, 2)),
        "audited": np.ones(4, np.bool_),
        "audit_share": 0.1,
        "first": np.tile([1.0, 0.0], (4, 1)),
        "tried": np.zeros(4, np.intp),
        "reveals": "chain",
        "best": 1,
    }
    with pytest.raises(DataError, match=said):
        PartialLog(**{**base, **change})  # type: ignore[arg-type]
