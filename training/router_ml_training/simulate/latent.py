"""What happens behind the words of a simulated request: how hard it is, which tiers are up to it, which calls fail.

A request has a latent difficulty. Part of it lies in where it comes from (feature, template, tenant, language), part
shows in its words, part is hidden. A tier's answer is good with a probability that falls with difficulty, faster for a
weak tier, and that is cut by slips which have nothing to do with difficulty: a strong tier is wrong now and then where
a weak one is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from router_ml_training.simulate.company import FEATURES, TENANTS, Company
from router_ml_training.simulate.timetable import Call

__all__ = ["THREE_TIERS", "TWO_TIERS", "SimulatedTier", "draw_difficulty", "draw_errors", "draw_outcomes"]

F64: TypeAlias = NDArray[np.float64]

# Weights of the parts of difficulty; the hidden part is what no router can see before the call.
_COMPLEXITY = 1.7
_HIDDEN = 0.4
_PER_TURN = 0.12
_DRIFT = 0.2
_LANGUAGE = {"en": 0.0, "de": 0.1, "fr": 0.1, "es": 0.1, "zh": 0.4}

_ERROR_RATE = 0.012
_ERRORS = {"timeout": 0.40, "http_429": 0.35, "http_500": 0.25}
# Each tier has a bad while: this share of the period, with this rate of errors.
_INCIDENT_LENGTH, _INCIDENT_RATE = 0.01, 0.30


@dataclass(frozen=True, slots=True)
class SimulatedTier:
    """How a simulated tier behaves.

    `quality` is its mean over the workload: it is set, not found, so that the gap between tiers does not depend on the
    seed. `slope` is how fast its quality falls with difficulty, `slip` how often it is wrong on a request that it could
    do, `visible` the share of its bad answers that can be seen to be bad.
    """

    name: str
    model: str
    quality: float
    slope: float
    slip: float
    visible: float
    ttft_ms: float
    ms_per_token: float


_SMALL = SimulatedTier("small", "gpt-4o-mini", 0.80, 3.5, 0.015, 0.40, 320.0, 7.0)
_MEDIUM = SimulatedTier("medium", "claude-3-5-haiku", 0.86, 1.6, 0.03, 0.35, 420.0, 9.0)
_LARGE = SimulatedTier("large", "gpt-4o", 0.90, 0.85, 0.04, 0.25, 520.0, 13.0)
TWO_TIERS = (_SMALL, _LARGE)
THREE_TIERS = (_SMALL, _MEDIUM, _LARGE)


def draw_difficulty(calls: Sequence[Call], company: Company, complexity: F64, rng: Generator) -> F64:
    """Return the difficulty of each request, shape (n,); its scale is that of a logit.

    Args:
        calls: The requests, (n,).
        company: Where they come from.
        complexity: The part that shows in their words, standardised, (n,).
        rng: Source of the hidden part.
    """
    known = np.array(
        [
            FEATURES[call.feature].difficulty
            + TENANTS[call.tenant].difficulty
            + company.templates[call.feature][call.template].difficulty
            + float(company.fit[call.tenant, call.feature])
            + _LANGUAGE[call.language]
            + _PER_TURN * call.turn
            + _DRIFT * call.progress
            for call in calls
        ]
    )
    difficulty: F64 = known + _COMPLEXITY * complexity + rng.normal(0.0, _HIDDEN, len(calls))
    return difficulty


def draw_outcomes(difficulty: F64, tiers: Sequence[SimulatedTier], rng: Generator) -> NDArray[np.bool_]:
    """Return whether each tier's answer to each request is good, shape (n, K)."""
    chances = np.stack([_chances(difficulty, tier) for tier in tiers], axis=1)
    good: NDArray[np.bool_] = rng.random(chances.shape) < chances
    return good


def draw_errors(calls: Sequence[Call], n_tiers: int, rng: Generator) -> NDArray[np.object_]:
    """Return the infrastructure error of each call, shape (n, K): "timeout", "http_429", "http_500", or None."""
    progress = np.array([call.progress for call in calls])[:, None]
    incident = rng.uniform(0.1, 0.9, n_tiers)
    inside = np.abs(progress - incident) < _INCIDENT_LENGTH / 2
    fails = rng.random(inside.shape) < np.where(inside, _INCIDENT_RATE, _ERROR_RATE)
    errors: NDArray[np.object_] = rng.choice(np.array(list(_ERRORS), np.object_), fails.shape, p=list(_ERRORS.values()))
    errors[~fails] = None
    return errors


def _chances(difficulty: F64, tier: SimulatedTier) -> F64:
    # Find the ability at which the mean of the workload is the declared quality; the mean rises with ability.
    low, high = float(difficulty.min()) - 20, float(difficulty.max()) + 20
    for _ in range(60):
        ability = (low + high) / 2
        chances = (1 - tier.slip) / (1 + np.exp(-tier.slope * (ability - difficulty)))
        low, high = (ability, high) if chances.mean() < tier.quality else (low, ability)
    return chances
