"""The law of slips: public without audits, its own with them, never the wrong way round, and the same in the graph."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from router_ml_training.slips import PUBLIC_SLIP, SlipLaw, fit_slip


def drawn(law: SlipLaw, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cheaper, rise = rng.uniform(0.05, 0.95, n), rng.uniform(0.05, 0.95, n)
    return cheaper, rise, (rng.random(n) < law.probability(cheaper, rise)).astype(float)


def test_the_law_is_its_formula() -> None:
    law = SlipLaw(-1.0, 0.5, 2.0)
    expected = expit(-1.0 + 0.5 * logit(1 - 0.3) + 2.0 * logit(1 - 0.6))
    assert law.probability(np.array([0.6]), np.array([0.3]))[0] == pytest.approx(expected)


def test_without_audited_rows_the_public_law_holds() -> None:
    nothing = np.zeros(0)
    assert fit_slip(nothing, nothing, nothing, nothing) == PUBLIC_SLIP


def test_many_audited_rows_recover_another_law() -> None:
    law = SlipLaw(-2.5, 0.2, 0.4)
    cheaper, rise, failed = drawn(law, 40_000)
    found = fit_slip(cheaper, rise, failed, np.ones(40_000))
    assert (found.intercept, found.by_dearer, found.by_cheaper) == pytest.approx((-2.5, 0.2, 0.4), abs=0.08)


def test_a_handful_of_audited_rows_hardly_moves_it() -> None:
    cheaper, rise, failed = drawn(SlipLaw(-4.0, 0.0, 0.0), 10)
    found = fit_slip(cheaper, rise, failed, np.ones(10))
    assert PUBLIC_SLIP.intercept - 0.7 < found.intercept < PUBLIC_SLIP.intercept


def test_what_is_hard_for_others_is_never_easy_here() -> None:
    cheaper, rise, _ = drawn(PUBLIC_SLIP, 5000)
    found = fit_slip(cheaper, rise, (rise > 0.5).astype(float), np.ones(5000))
    assert found.by_dearer == 0.0
    assert found.by_cheaper >= 0.0


def test_rows_count_by_how_surely_the_cheaper_tier_was_good() -> None:
    cheaper, rise, failed = drawn(PUBLIC_SLIP, 200)
    half = fit_slip(np.tile(cheaper, 2), np.tile(rise, 2), np.tile(failed, 2), np.full(400, 0.5))
    whole = fit_slip(cheaper, rise, failed, np.ones(200))
    assert half.intercept == pytest.approx(whole.intercept, abs=1e-3)


def test_certainty_is_no_infinity() -> None:
    p = PUBLIC_SLIP.probability(np.array([0.0, 1.0, 0.0]), np.array([0.0, 1.0, 1.0]))
    assert ((p > 0) & (p < 1)).all()
