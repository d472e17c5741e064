"""Accepted and rejected against the truth."""

from __future__ import annotations

import pytest

from router_ml_training.evaluation.confusion import Confusion


def test_judgements_are_counted_in_four_cells() -> None:
    found = Confusion.of("small", [True, True, True, False, False], [True, True, False, True, False])
    assert found == Confusion("small", accepted_good=2, accepted_poor=1, rejected_good=1, rejected_poor=1)
    assert found.n == 5


def test_rates_are_shares_of_a_truth_with_wilson_intervals() -> None:
    found = Confusion("small", accepted_good=80, accepted_poor=5, rejected_good=20, rejected_poor=15)
    assert (found.needless.value, found.missed.value) == (0.2, 0.25)
    # Wilson's interval of 20 in 100.
    assert (found.needless.low, found.needless.high) == pytest.approx((0.1334, 0.2888), abs=1e-4)


def test_a_rate_without_cases_is_undefined_with_its_reason() -> None:
    found = Confusion("small", 3, 0, 1, 0)
    assert (found.missed.value, found.missed.reason) == (None, "no answer was poor")
    assert Confusion.of("small", [], []).needless.reason == "no answer was good"
