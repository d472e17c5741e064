"""Shared heads: what one tier's rows teach is believed of the others, and they are drawn as linear heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_ml_training.censored import Form, first_lessons
from router_ml_training.dataset import Dataset
from router_ml_training.encoder import fit_encoder
from router_ml_training.learners.constant import ConstantHead
from router_ml_training.learners.linear import LinearHead
from router_ml_training.learners.logistic import logistic
from router_ml_training.learners.protocol import Fit
from router_ml_training.shared import fit_shared, one_outcome_each

FORMS: tuple[Form, ...] = ("shared", "shared")


def by_difficulty(world: Any, n: int, seed: int) -> tuple[Dataset, np.ndarray]:
    """A log whose policy sends what is hard to the large tier: neither tier sees the other's requests."""
    difficulty = world.draw(n, np.random.default_rng(seed)).difficulty
    data = world.dataset(n, seed)
    hard = difficulty >= 3
    return replace(data, quality=np.where(np.stack([~hard, hard], axis=1), data.quality, np.nan)), difficulty


def test_a_tier_is_told_what_the_other_one_saw(world: Any) -> None:
    log, difficulty = by_difficulty(world, 3000, 1)
    design = fit_encoder(log, curved=False, latent=False).encode(log)
    small, _ = fit_shared(design, first_lessons(log, FORMS), seed=0)
    logit = small.logit(design)
    easy, hard = logit[difficulty == 0].mean(), logit[difficulty == 4].mean()
    # No hard request was ever answered by the small tier.
    assert easy > hard + 0.3


def test_the_heads_are_those_of_one_problem_with_copied_columns(world: Any) -> None:
    log, _ = by_difficulty(world, 400, 1)
    design, lessons = fit_encoder(log, curved=False, latent=False).encode(log), first_lessons(log, FORMS)
    rows = np.concatenate([one.rows for one in lessons])
    tier = np.repeat([0, 1], [len(one.rows) for one in lessons])
    common = np.hstack((design.words[rows].toarray(), design.scaled[rows] * 0.1))
    own = [common * 0.2 * (tier == t)[:, None] for t in (0, 1)]
    levels = np.eye(2)[tier] * 3.0
    target, weight = (np.concatenate([getattr(one, name) for one in lessons]) for name in ("target", "weight"))
    problem = Fit(design, target, weight, rows, 0)
    (shared, first, second, level), intercept = logistic((common, *own, levels), problem, c=0.5) or ([], 0.0)
    for t, (head, deviation) in enumerate(zip(fit_shared(design, lessons, seed=0), (first, second), strict=True)):
        everyone = np.hstack((design.words.toarray(), design.scaled * 0.1))
        expected = everyone @ (shared + 0.2 * deviation) + intercept + 3.0 * level[t]
        np.testing.assert_allclose(head.logit(design), expected, atol=2e-3)


def test_where_the_search_starts_does_not_matter(world: Any) -> None:
    log, _ = by_difficulty(world, 600, 1)
    design, lessons = fit_encoder(log, curved=False, latent=False).encode(log), first_lessons(log, FORMS)
    cold = fit_shared(design, lessons, seed=0)
    rough = fit_shared(design, lessons, seed=0, roughly=True)
    warm = fit_shared(design, lessons, seed=0, after=rough)
    for one, other in zip(cold, warm, strict=True):
        np.testing.assert_allclose(one.logit(design), other.logit(design), atol=2e-3)


def test_one_class_gives_constants(world: Any) -> None:
    log, _ = by_difficulty(world, 60, 1)
    flawless = replace(log, quality=np.where(np.isnan(log.quality), np.nan, 1.0))
    design = fit_encoder(log, curved=False, latent=False).encode(log)
    heads = fit_shared(design, first_lessons(flawless, FORMS), seed=0)
    assert all(isinstance(head, ConstantHead) for head in heads)


def test_the_same_rows_give_the_same_heads(world: Any) -> None:
    log, _ = by_difficulty(world, 300, 1)
    design = fit_encoder(log, curved=False, latent=False).encode(log)
    first, again = (fit_shared(design, first_lessons(log, FORMS), seed=0) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, LinearHead)
        np.testing.assert_array_equal(one.logit(design), other.logit(design))


@pytest.mark.parametrize(("both", "expected"), [(0, True), (19, True), (21, False)])
def test_a_log_has_one_outcome_each_when_few_rows_have_more(world: Any, both: int, expected: bool) -> None:
    quality = np.tile([1.0, np.nan], (100, 1))
    quality[:both, 1] = 0.0
    assert one_outcome_each(replace(world.dataset(100, 0), quality=quality)) is expected
