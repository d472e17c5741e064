"""Logging policies as data: how likely each tier is to be tried first, and what happens when its answer is poor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.errors import DataError
from router_ml.features.view import text_of
from router_ml_training.simulate.outcomes import OutcomeTable

__all__ = ["AUDIT", "CASCADE", "FULL", "SKEWED", "UNIFORM", "Behaviour", "LogOptions"]

F64: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What a simulated log looks like.

    Args:
        bar: Quality from which an answer counts as adequate: 1.0 for right or wrong, about 0.9 for graded tables.
        epsilon: Exploration of `skewed`: each of K tiers is tried with probability epsilon / K at least.
        judge_noise: Probability that a verdict is flipped; verdicts then come from a `judge`, without a score.
        error_rate: Infrastructure errors to add to those of the table, per call.
        feedback: "check": every answer is judged at once. "thumbs": a share of requests is judged by late thumbs only,
            and by no others than users who bother.
        thumbs_share: That share.
        audit_share: Share of requests for which all tiers are run, at random, whatever the policy.
        store_text: Keep messages and answers in the log.
    """

    bar: float = 1.0
    epsilon: float = 0.05
    judge_noise: float = 0.0
    error_rate: float = 0.0
    feedback: Literal["check", "thumbs"] = "check"
    thumbs_share: float = 0.5
    audit_share: float = 0.0
    store_text: bool = True

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        for name in ("bar", "epsilon", "judge_noise", "error_rate", "thumbs_share", "audit_share"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise DataError(f"{name} must be between 0 and 1, got {value}")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """A logging policy.

    Args:
        propensity: From a table to the probability of each tier to be tried first, (n, K), each row summing to 1.
            None: every tier is tried, so nothing is chosen.
        escalates: Whether the next dearer tier is tried when an answer is judged inadequate, or a call fails.
        ideal: Leave out errors and noise: everything is known, and true.
    """

    propensity: Callable[[OutcomeTable, LogOptions], F64] | None
    escalates: bool = False
    ideal: bool = False


def _evenly(outcomes: OutcomeTable, options: LogOptions) -> F64:
    k = len(outcomes.tiers)
    return np.full((len(outcomes), k), 1 / k)


def _cheapest(outcomes: OutcomeTable, options: LogOptions) -> F64:
    return _one_hot(np.zeros(len(outcomes), np.int64), len(outcomes.tiers))


def _by_length(outcomes: OutcomeTable, options: LogOptions) -> F64:
    # Long prompts to the dearest tier, short ones to the cheapest, and a floor under every tier.
    lengths = [sum(len(text_of(m.get("content"))) for m in request.messages) for request in outcomes.requests]
    k = len(outcomes.tiers)
    preferred = np.where(np.array(lengths) > np.median(lengths), k - 1, 0)
    return (1 - options.epsilon) * _one_hot(preferred, k) + options.epsilon / k


def _one_hot(index: NDArray[np.int64], k: int) -> F64:
    return np.eye(k)[index]


UNIFORM = Behaviour(_evenly)
CASCADE = Behaviour(_cheapest, escalates=True)
SKEWED = Behaviour(_by_length)
AUDIT = Behaviour(None)
FULL = Behaviour(None, ideal=True)
