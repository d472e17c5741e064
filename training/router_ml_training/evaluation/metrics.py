"""What a curve is worth: PGR, APGR, CPT, AIQ, CS and QNC, each undefined with a reason where it means nothing.

Each metric works on a batch of curves at once (`Points`), so that a bootstrap is one call per batch of draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from router_ml_training.evaluation.hull import hull, mean_height
from router_ml_training.evaluation.outcomes import Curve, Floats, Points

__all__ = [
    "TARGETS",
    "CurveMetric",
    "Figure",
    "aiq",
    "apgr",
    "cost_ratio",
    "cpt",
    "cs",
    "curve_metrics",
    "qnc",
    "quality_gap",
    "random_cs",
    "zero_aiq",
]

TARGETS = (0.95, 0.97, 0.99, 1.0)
_TOLERANCE = 1e-12  # sums of n products differ in the last bits; a point that reaches its target must count


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a result: its value and 95 % interval, or why there is none.

    `low` and `high` are None when no interval was asked for, or when the draws that set it were themselves undefined.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, float | str | None]:
        """As JSON: `value, low, high`, and `reason` when there is no value."""
        record: dict[str, float | str | None] = {"value": self.value, "low": self.low, "high": self.high}
        return record if self.reason is None else record | {"reason": self.reason}


@dataclass(frozen=True, slots=True)
class CurveMetric:
    """One metric of a curve.

    Args:
        name: Key in results, such as `cs_97`.
        values: The metric of each curve of a batch, (b,), NaN where undefined.
        reason: Why it is undefined on a batch of one.
        better: Which way is better; a bootstrap draw in which it is undefined counts as the worst.
    """

    name: str
    values: Callable[[Points], Floats]
    reason: Callable[[Points], str]
    better: int = 1

    def of(self, curve: Curve) -> Figure:
        """The metric of one curve, without an interval."""
        points = curve.points()
        value = float(self.values(points)[0])
        return Figure(None, reason=self.reason(points)) if np.isnan(value) else Figure(value)


def curve_metrics(targets: tuple[float, ...] = TARGETS) -> tuple[CurveMetric, ...]:
    """Every metric of a curve, in the order of a results table; CS and the random mix's CS at each of `targets`."""
    savings = [metric for x in targets for metric in (_cs(x), _random_cs(x))]
    return (_GAP, _RATIO, _APGR, _cpt(0.5), _cpt(0.8), _AIQ, _ZERO_AIQ, *savings, _QNC)


def apgr(curve: Curve) -> Figure:
    """Mean PGR over every share k/n of large calls, by the trapezoid; a random router scores 0.5, an oracle may pass 1.

    PGR, the performance gap recovered, is 0 for always the small tier, 1 for always the large one.

    Source: RouteLLM, arXiv 2406.18665, section 3; exact in the share instead of its ten bins.
    """
    return _APGR.of(curve)


def cpt(curve: Curve, x: float) -> Figure:
    """Smallest share of large calls whose PGR is at least `x`: the first crossing on the sorted scores."""
    return _cpt(x).of(curve)


def aiq(curve: Curve) -> Figure:
    """Mean height of the non-decreasing convex hull of the curve and the single tiers.

    The mean runs over costs from that of always the cheapest tier to that of always the dearest; the hull is cut there.
    Source: RouterBench, arXiv 2403.12031, section 3.
    """
    return _AIQ.of(curve)


def zero_aiq(curve: Curve) -> Figure:
    """AIQ of the single tiers alone: what mixing them without any learning gives."""
    return _ZERO_AIQ.of(curve)


def cs(curve: Curve, x: float) -> Figure:
    """Cost saving at `x` of the best tier's quality.

    1 - cost of the cheapest point that reaches it / cost of always the best tier. Raw points only, no mixing of them.
    """
    return _cs(x).of(curve)


def random_cs(curve: Curve, x: float) -> Figure:
    """Cost saving at `x` of the best tier's quality by mixing single tiers at random: a saving that needs no router."""
    return _random_cs(x).of(curve)


def qnc(curve: Curve) -> Figure:
    """Least cost at which the curve matches the best single tier's quality, over that tier's cost: 1 - CS(1.00)."""
    return _QNC.of(curve)


def quality_gap(curve: Curve) -> Figure:
    """g: how much worse the cheapest tier is than the best, relative to the best; below 3 %, 97 % needs no router."""
    return _GAP.of(curve)


def cost_ratio(curve: Curve) -> Figure:
    """r: mean cost of the cheapest tier over that of the best."""
    return _RATIO.of(curve)


def _pgr(points: Points) -> Floats:
    small, large = points.tier_quality[:, :1], points.tier_quality[:, points.best, None]
    gap = large - small
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(gap > 0, (points.quality - small) / np.where(gap > 0, gap, 1.0), np.nan)


def _covers(points: Points) -> bool:
    return bool(
        np.isclose(points.share[:, 0], 0, atol=1e-9).all() and np.isclose(points.share[:, -1], 1, atol=1e-9).all()
    )


def _apgr_values(points: Points) -> Floats:
    if points.tier_quality.shape[1] != 2 or points.best != 1 or not _covers(points):
        return np.full(points.cost.shape[0], np.nan)
    return np.asarray(np.trapezoid(_pgr(points), points.share, axis=1), dtype=np.float64)


def _share_reason(points: Points) -> str:
    tiers = points.tier_quality.shape[1]
    if tiers != 2:
        return f"defined for two tiers; this ladder has {tiers}"
    if points.best != 1 or points.tier_quality[0, 1] <= points.tier_quality[0, 0]:
        return f"no gap to recover: {_versus(points)}"
    if not _covers(points):
        return f"the curve covers large shares {points.share[0, 0]:.3f} to {points.share[0, -1]:.3f}, not 0 to 1"
    return "the curve never recovers that share of the gap"


def _cpt(x: float) -> CurveMetric:
    def values(points: Points) -> Floats:
        if points.tier_quality.shape[1] != 2 or points.best != 1:
            return np.full(points.cost.shape[0], np.nan)
        reaching = _pgr(points) >= x - _TOLERANCE
        share = np.where(reaching, points.share, np.inf).min(axis=1)
        return np.where(np.isfinite(share), share, np.nan)

    def reason(points: Points) -> str:
        said = _share_reason(points)
        return "the curve never recovers that share of the gap" if said.startswith("the curve") else said

    return CurveMetric(f"cpt_{_percent(x)}", values, reason, better=-1)


def _cheapest(points: Points, x: float) -> Floats:
    """Cost of the cheapest raw point reaching x of the best tier's quality, over that tier's cost; NaN if none."""
    best_quality, best_cost = points.tier_quality[:, points.best], points.tier_cost[:, points.best]
    reaching = points.quality >= (x * best_quality - _TOLERANCE)[:, None]
    cost = np.where(reaching, points.cost, np.inf).min(axis=1)
    defined = np.isfinite(cost) & (best_cost > 0) & (best_quality > 0)
    return np.where(defined, cost / np.where(best_cost > 0, best_cost, 1.0), np.nan)


def _saving_reason(x: float) -> Callable[[Points], str]:
    def reason(points: Points) -> str:
        quality, usd = points.tier_quality[0, points.best], points.tier_cost[0, points.best]
        if usd <= 0:
            return "the best tier costs nothing, so there is nothing to save"
        if quality <= 0:
            return "the best tier's quality is 0, so any answer keeps all of it"
        peak = points.quality.max()
        return f"no point reaches {x:.1%} of the best tier's quality: the highest is {peak:.4f} of {quality:.4f}"

    return reason


def _cs(x: float) -> CurveMetric:
    return CurveMetric(f"cs_{_percent(x)}", lambda points: 1.0 - _cheapest(points, x), _saving_reason(x))


def _random_cs(x: float) -> CurveMetric:
    def values(points: Points) -> Floats:
        return np.array([_random_saving(cost, quality, points.best, x) for cost, quality in _tiers(points)])

    return CurveMetric(f"random_cs_{_percent(x)}", values, _saving_reason(x))


def _random_saving(cost: Floats, quality: Floats, best: int, x: float) -> float:
    if cost[best] <= 0 or quality[best] <= 0:
        return float("nan")
    usd, worth = hull(cost, quality)
    target = min(x * float(quality[best]), float(worth[-1]))
    return float(1.0 - np.interp(target, worth, usd) / cost[best])


def _hull_values(points: Points, curves: bool) -> Floats:
    areas = np.full(points.cost.shape[0], np.nan)
    for draw, (cost, quality) in enumerate(_tiers(points)):
        low, high = float(cost.min()), float(cost.max())
        if high > low:
            usd = np.concatenate((cost, points.cost[draw])) if curves else cost
            worth = np.concatenate((quality, points.quality[draw])) if curves else quality
            areas[draw] = mean_height(*hull(usd, worth), low, high)
    return areas


def _tiers(points: Points) -> zip[tuple[Floats, Floats]]:
    return zip(points.tier_cost, points.tier_quality, strict=True)


def _gap_values(points: Points) -> Floats:
    best = points.tier_quality[:, points.best]
    cheapest = _at_cheapest(points, points.tier_quality)
    return np.where(best > 0, (best - cheapest) / np.where(best > 0, best, 1.0), np.nan)


def _ratio_values(points: Points) -> Floats:
    best = points.tier_cost[:, points.best]
    return np.where(best > 0, points.tier_cost.min(axis=1) / np.where(best > 0, best, 1.0), np.nan)


def _at_cheapest(points: Points, table: Floats) -> Floats:
    cheapest: Floats = np.take_along_axis(table, points.tier_cost.argmin(axis=1)[:, None], axis=1)[:, 0]
    return cheapest


def _versus(points: Points) -> str:
    small, large = points.tier_quality[0, 0], points.tier_quality[0, -1]
    return f"the large tier's quality {large:.4f} is not above the small tier's {small:.4f}"


def _percent(x: float) -> str:
    """0.97 -> "97", 0.975 -> "97.5"."""
    return f"{100 * x:g}"


_APGR = CurveMetric("apgr", _apgr_values, _share_reason)
_AIQ = CurveMetric("aiq", lambda points: _hull_values(points, True), lambda _: "every tier costs the same")
_ZERO_AIQ = CurveMetric("zero_aiq", lambda points: _hull_values(points, False), lambda _: "every tier costs the same")
_QNC = CurveMetric("qnc", lambda points: _cheapest(points, 1.0), _saving_reason(1.0), better=-1)
_GAP = CurveMetric("quality_gap", _gap_values, lambda _: "the best tier's quality is 0")
_RATIO = CurveMetric("cost_ratio", _ratio_values, lambda _: "the best tier costs nothing")

METRICS: Mapping[str, CurveMetric] = {metric.name: metric for metric in curve_metrics()}
