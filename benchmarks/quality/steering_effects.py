"""What an attack on a router does: decisions with and without it, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.config import ExplorationSettings, PolicySettings
from router_ml.router import Router
from router_ml.schema import Decision, Request
from router_ml_training.evaluation.bootstrap import mean_figure
from router_ml_training.evaluation.metrics import Figure

__all__ = ["QUALITY", "Effect", "Looks", "decided", "effect_of", "looks_of", "router_of"]

F64: TypeAlias = NDArray[np.float64]
QUALITY = 0.97


@dataclass(frozen=True, slots=True)
class Looks:
    """How a router decides some requests: the first tier's position, (n,), and P(tier adequate), (n, K)."""

    tier: NDArray[np.int64]
    adequacy: F64


@dataclass(frozen=True, slots=True)
class Effect:
    """What one attack does: shares of decisions, mean absolute change of P(adequate), and what the flips cost."""

    attack: str
    down: Figure
    up: Figure
    moved: Figure
    quality_lost: Figure
    cost_added: Figure

    @property
    def figures(self) -> Mapping[str, Figure]:
        """Every figure by its name."""
        return {
            "flipped down": self.down,
            "flipped up": self.up,
            "change of P(adequate)": self.moved,
            "quality lost by down flips": self.quality_lost,
            "cost added by up flips": self.cost_added,
        }


def router_of(bundle: Bundle) -> Router:
    """Return a router that explores nothing, at the quality that everything here is measured at."""
    return Router(bundle, PolicySettings(quality=QUALITY), ExplorationSettings(up=0.0, audit=0.0, shadow=0.0), {})


def decided(router: Router, request: Request) -> Decision:
    """Return the decision on one request; nothing is drawn that could change it."""
    return router.route(request, decision_id="steering", rng=np.random.default_rng(0))


def looks_of(router: Router, requests: Sequence[Request]) -> Looks:
    """Return how a router decides n requests, one by one, as the service does."""
    decisions = [decided(router, request) for request in requests]
    tiers = [router.ladder.index(decision.tier) for decision in decisions]
    return Looks(np.array(tiers, np.int64), np.array([list(one.adequacy.values()) for one in decisions]))


def effect_of(attack: str, before: Looks, after: Looks, quality: F64, cost: F64, *, draws: int) -> Effect:
    """Compare decisions with and without an attack.

    Args:
        attack: Its name.
        before: Without it.
        after: With it.
        quality: What each tier's answer is worth, (n, K).
        cost: What it costs, (n, K).
        draws: Bootstrap draws.
    """
    everyone = np.arange(len(quality))
    down, up = after.tier < before.tier, after.tier > before.tier

    def figure(values: NDArray[np.generic]) -> Figure:
        return mean_figure(values, rng=np.random.default_rng(0), draws=draws)

    def changed(worth: F64, flipped: NDArray[np.bool_]) -> F64:
        change: F64 = flipped * (worth[everyone, after.tier] - worth[everyone, before.tier]) / worth[:, -1].mean()
        return change

    return Effect(
        attack,
        figure(down),
        figure(up),
        figure(np.abs(after.adequacy - before.adequacy).mean(axis=1)),
        figure(-changed(quality, down)),
        figure(changed(cost, up)),
    )
