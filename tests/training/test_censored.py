"""Lessons: who is learned from and how much, from certain evidence at once, from uncertain evidence by posteriors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml_training.censored import Form, exact, first_lessons, form_of, informed_lessons, smoothed, spoken_of
from router_ml_training.dataset import Dataset

X = np.nan
CHAIN: tuple[Form, ...] = ("marginal", "chained")
THREE: tuple[Form, ...] = ("marginal", "chained", "chained")


@pytest.fixture(scope="module")
def plain(world: Any) -> Dataset:
    made: Dataset = world.dataset(8, 0)
    return made


def told(plain: Dataset, quality: list[list[float]], escalated: list[list[int]] | None = None, **more: Any) -> Dataset:
    table = np.array(quality, float)
    n, k = table.shape
    flags = np.zeros((n, k), bool) if escalated is None else np.array(escalated, bool)
    rows = plain.rows(np.arange(n))
    fields: dict[str, Any] = {
        "soft": np.full((n, k), X),
        "action": np.full(n, -1),
        "propensity": np.full((n, k), X),
        "cost_usd": np.full((n, k), X),
        "output_tokens": np.full((n, k), X),
        **more,
    }
    return replace(rows, tiers=tuple("abc"[:k]), quality=table, escalated=flags, **fields)


@pytest.mark.parametrize(
    ("free", "escalated", "form"),
    [(0, 50, "chained"), (10, 50, "chained"), (99, 50, "chained"), (100, 50, "marginal"), (10, 0, "marginal")],
)
def test_a_tier_is_chained_when_few_of_its_outcomes_were_seen_freely(
    world: Any, free: int, escalated: int, form: str
) -> None:
    n = free + escalated
    flags = np.zeros((n, 2), bool)
    flags[free:, 1] = True
    data = replace(world.dataset(n, 0), quality=np.zeros((n, 2)), escalated=flags)
    assert form_of(data, 0) == "marginal"
    assert form_of(data, 1) == form


def test_a_tier_that_nothing_links_to_the_cheaper_one_stands_alone(plain: Dataset) -> None:
    assert form_of(told(plain, [[0, X], [X, 1], [X, 1]], [[0, 0], [0, 1], [0, 1]]), 1) == "marginal"


def test_a_chained_head_learns_from_known_failures_as_far_as_they_failed(plain: Dataset) -> None:
    data = told(plain, [[0, 1], [1, X], [0.25, 0], [1, 1]], [[0, 0], [0, 0], [0, 1], [0, 0]])
    small, large = first_lessons(data, ("marginal", "chained"))
    assert small.rows.tolist() == [0, 1, 2, 3]
    assert small.target.tolist() == [0, 1, 0.25, 1]
    assert large.rows.tolist() == [0, 2]
    assert large.target.tolist() == [1, 0]
    assert large.weight.tolist() == [1, 0.75]


def test_a_marginal_head_leaves_escalated_outcomes_out(plain: Dataset) -> None:
    data = told(plain, [[0, 1], [1, 1]], [[0, 1], [0, 0]])
    assert first_lessons(data, ("marginal", "marginal"))[1].rows.tolist() == [1]


def test_the_posterior_of_certain_evidence_gives_the_first_lessons_again(plain: Dataset) -> None:
    data = told(plain, [[0, 1], [1, X], [0, 0], [1, 1]], [[0, 1], [0, 0], [0, 1], [0, 0]])
    assert exact(data, CHAIN)
    again = informed_lessons(data, CHAIN, smoothed(data, np.full((4, 2), 0.3), np.full((4, 2), 0.2)))
    for one, other in zip(first_lessons(data, CHAIN), again, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        np.testing.assert_allclose(one.target, other.target)
        np.testing.assert_allclose(one.weight, other.weight)


def test_a_skipped_tier_counts_as_likely_as_it_failed(plain: Dataset) -> None:
    data = told(plain, [[0, X, 1], [0, 0, 1], [1, X, X]], [[0, 0, 1], [0, 1, 1], [0, 0, 0]])
    assert not exact(data, THREE)
    rise, slip = np.tile([0.5, 0.6, 0.3], (3, 1)), np.tile([0.5, 0.1, 0.1], (3, 1))
    _, middle, last = informed_lessons(data, THREE, smoothed(data, rise, slip))
    middle_ok = 0.54 / (0.54 + 0.12)
    assert last.rows.tolist() == [0, 1]
    assert last.weight == pytest.approx([1 - middle_ok, 1])
    # What was skipped is told from both sides; the row that stopped at the first tier says nothing of the others.
    assert middle.rows.tolist() == [0, 1]
    assert middle.target == pytest.approx([middle_ok, 0])


def test_a_hint_makes_evidence_uncertain(plain: Dataset) -> None:
    soft = np.array([[0.25, X], [X, X]])
    data = told(plain, [[X, 1], [1, X]], [[0, 1], [0, 0]], soft=soft)
    assert not exact(data, ("marginal", "chained"))
    assert spoken_of(data).tolist() == [[True, True], [True, False]]
    found = smoothed(data, np.tile([0.8, 0.5], (2, 1)), np.tile([0.2, 0.0], (2, 1)))
    # 0.8 * 0.25 * 1 against 0.2 * 0.75 * 0.5
    assert found.ok[0, 0] == pytest.approx(0.2 / (0.2 + 0.075), rel=1e-4)


def test_rounds_do_not_inflate_graded_outcomes_of_a_cascade_that_explores_upwards(plain: Dataset) -> None:
    rng = np.random.default_rng(0)
    n, right = 400, rng.random(400) < 0.6
    up, failed = np.arange(n) % 10 == 0, ~right
    quality, escalated = np.full((n, 2), X), np.zeros((n, 2), bool)
    quality[~up, 0] = right[~up]
    quality[~up & failed, 1], escalated[~up & failed, 1] = 0.7, True
    quality[up, 1] = np.where(right[up], 0.9, 0.7)
    many = plain.rows(np.zeros(n, np.int64))
    data = replace(
        many,
        quality=quality,
        escalated=escalated,
        soft=np.full((n, 2), X),
        action=up.astype(np.int64),
        propensity=np.tile([0.9, 0.1], (n, 1)),
        output_tokens=quality,
        cost_usd=quality,
    )
    forms = CHAIN
    assert not exact(data, forms)
    lessons = first_lessons(data, forms)
    for _ in range(4):
        rise = [float(one.target @ one.weight / one.weight.sum()) for one in lessons]
        lessons = informed_lessons(data, forms, smoothed(data, np.tile(rise, (n, 1)), np.full((n, 2), 0.05)))
    # Those that skipped the cheap tier are told from their grade: some of the 0.9 count as failures of it.
    assert 0.7 <= rise[1] <= 0.73


def test_a_refusal_that_was_thinned_away_still_explains_the_escalation(plain: Dataset) -> None:
    tokens = np.array([[9.0, 9.0], [9.0, X]])
    data = told(plain, [[X, 1], [1, X]], [[0, 1], [0, 0]], output_tokens=tokens)
    assert exact(data, CHAIN)
    small, large = first_lessons(data, CHAIN)
    assert small.rows.tolist() == [1]
    assert large.rows.tolist() == [0]
    assert large.weight.tolist() == [1]
    posterior = smoothed(data, np.full((2, 2), 0.5), np.full((2, 2), 0.1))
    small, large = informed_lessons(data, CHAIN, posterior)
    assert small.rows.tolist() == [1]
    assert large.rows.tolist() == [0]


def test_unlikely_draws_stand_for_many_but_not_for_very_many(plain: Dataset) -> None:
    propensity = np.array([[0.5, 0.5], [0.01, 0.99], [0.0, 0.7], [X, X]])
    data = told(plain, [[1, X], [0, X], [1, X], [0, X]], action=np.array([0, 0, 0, -1]), propensity=propensity)
    assert first_lessons(data, ("marginal", "marginal"))[0].weight.tolist() == [2, 5, 1, 1]
