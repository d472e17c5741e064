"""One row of the results table: what a fixed way to route costs, keeps and saves on known outcomes, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.baselines import always
from router_ml_training.evaluation.bootstrap import DRAWS, statistic_figure
from router_ml_training.evaluation.hull import hull
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Floats, Ints, Outcomes

__all__ = ["Strategy", "measure", "random_mix", "strategy_of", "vacuity"]


@dataclass(frozen=True, slots=True)
class Strategy:
    """What one way to route achieves.

    Args:
        name: As shown, such as "router" or "always small".
        cost_usd: Mean USD per request, every attempt included.
        quality: Mean quality.
        quality_kept: Quality relative to always the best tier.
        saving: 1 - cost relative to always the best tier; negative when dearer.
        share: Share of requests whose answer came from each column.
        escalation_rate: Share of requests that needed a second attempt; None when the strategy never escalates.
    """

    name: str
    cost_usd: float
    quality: float
    quality_kept: Figure
    saving: Figure
    share: tuple[float, ...]
    escalation_rate: float | None = None

    @property
    def cost_per_1k_usd(self) -> float:
        """USD per 1,000 requests."""
        return 1000 * self.cost_usd


def measure(
    name: str,
    *,
    quality: ArrayLike,
    cost: ArrayLike,
    column: Ints,
    outcomes: Outcomes,
    rng: Generator | None = None,
    escalated: ArrayLike | None = None,
    draws: int = DRAWS,
    groups: ArrayLike | None = None,
) -> Strategy:
    """Measure what really happened under a strategy, against always the best tier on the same requests.

    Args:
        name: As shown.
        quality: Realised quality, shape (n,).
        cost: Realised USD, every attempt included, shape (n,).
        column: Where each answer came from, shape (n,).
        outcomes: What every tier would have done.
        rng: Source of bootstrap draws; None leaves the intervals out.
        escalated: Whether a second attempt was made, shape (n,).
        draws: Bootstrap draws.
        groups: Session or template of each request, (n,).
    """
    worth, usd = np.asarray(quality, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if not worth.shape == usd.shape == np.shape(column) == (outcomes.n,):
        raise DataError(f"strategy '{name}' has {worth.shape} qualities for {outcomes.n} requests")
    best_quality, best_cost = outcomes.quality[:, outcomes.best_tier], outcomes.cost[:, outcomes.best_tier]

    def relative(mine: Floats, best: Floats, what: str, sign: float) -> Figure:
        def ratio(weights: Floats) -> Floats:
            base = weights @ best
            share = np.where(base > 0, weights @ mine / np.where(base > 0, base, 1.0), np.nan)
            return share if sign > 0 else 1.0 - share

        seed = np.random.default_rng(0) if rng is None else rng.spawn(1)[0]
        reason = f"the best tier's {what} is 0"
        return statistic_figure(
            ratio, outcomes.n, rng=seed, draws=draws if rng is not None else 0, groups=groups, reason=reason
        )

    shares = np.bincount(column, minlength=outcomes.quality.shape[1]) / outcomes.n
    return Strategy(
        name=name,
        cost_usd=float(usd.mean()),
        quality=float(worth.mean()),
        quality_kept=relative(worth, best_quality, "quality", 1.0),
        saving=relative(usd, best_cost, "cost", -1.0),
        share=tuple(float(share) for share in shares),
        escalation_rate=None if escalated is None else float(np.mean(np.asarray(escalated, dtype=np.float64))),
    )


def strategy_of(
    name: str,
    column: Ints,
    outcomes: Outcomes,
    *,
    rng: Generator | None = None,
    draws: int = DRAWS,
    groups: ArrayLike | None = None,
) -> Strategy:
    """Measure a strategy that answers each request from one column of the outcomes, shape (n,)."""
    everyone = np.arange(outcomes.n)
    return measure(
        name,
        quality=outcomes.quality[everyone, column],
        cost=outcomes.cost[everyone, column],
        column=column,
        outcomes=outcomes,
        rng=rng,
        draws=draws,
        groups=groups,
    )


def random_mix(outcomes: Outcomes, cost_usd: float, *, name: str = "random mix") -> Strategy:
    """The best random mix of single tiers that costs `cost_usd` per request, in expectation: what needs no learning.

    A cost below the cheapest tier's gets the cheapest tier; one above what the best mix can use gets that mix.
    """
    k = outcomes.n_tiers
    tier_cost, tier_quality = outcomes.cost[:, :k].mean(axis=0), outcomes.quality[:, :k].mean(axis=0)
    usd, worth = hull(tier_cost, tier_quality)
    budget = float(np.clip(cost_usd, usd[0], usd[-1]))
    share = np.zeros(outcomes.quality.shape[1])
    upper = min(int(np.searchsorted(usd, budget)), usd.size - 1)
    lower = max(upper - 1, 0)
    weight = 1.0 if upper == lower else (budget - usd[lower]) / (usd[upper] - usd[lower])
    for vertex, part in ((lower, 1 - weight), (upper, weight)):
        share[np.flatnonzero((tier_cost == usd[vertex]) & (tier_quality == worth[vertex]))[0]] += part
    quality = float(np.interp(budget, usd, worth))
    best_cost, best_quality = tier_cost[outcomes.best_tier], tier_quality[outcomes.best_tier]
    return Strategy(
        name=name,
        cost_usd=budget,
        quality=quality,
        quality_kept=Figure(quality / best_quality)
        if best_quality > 0
        else Figure(None, reason="the best quality is 0"),
        saving=Figure(1 - budget / best_cost) if best_cost > 0 else Figure(None, reason="the best tier costs nothing"),
        share=tuple(float(part) for part in share),
    )


def vacuity(outcomes: Outcomes, router: Strategy, quality: float) -> str | None:
    """Say why a claim of `quality` kept would be vacuous on this traffic; None when it takes learning to make it.

    Args:
        outcomes: What every tier would have done.
        router: The router at its operating point.
        quality: Quality asked for, relative to the best tier, such as 0.97.
    """
    k = outcomes.n_tiers
    cheapest = int(outcomes.cost[:, :k].mean(axis=0).argmin())
    kept = strategy_of("", always(cheapest, outcomes), outcomes).quality_kept.value
    if kept is not None and kept >= quality:
        return f"always the cheapest tier keeps {kept:.1%} of the best tier's quality, so no router is needed"
    mixed = random_mix(outcomes, router.cost_usd).quality_kept.value
    if mixed is not None and mixed >= quality:
        return f"a random mix at the same cost keeps {mixed:.1%} of the best tier's quality, so it takes no learning"
    return None
