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
