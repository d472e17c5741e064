"""What a bundle's policy would have been worth on a log that another policy wrote: rows picked, estimates, words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import PolicySpec
from router_ml.cli.output import table
from router_ml.errors import DataError
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.offpolicy import (
    CLIP,
    ESTIMATORS,
    Logged,
    OffPolicy,
    evaluate_offpolicy,
    recalibrated,
)
from router_ml_training.scored import Scored

__all__ = ["OffPolicyReport", "offpolicy_report"]

F64: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]

_NOTES = (
    "An answer counts by the first tier tried; escalations after it are left out, and so is their cost.",
    "Rewards that nobody reported are taken to be missing at random.",
    "DM and DR take quality and cost of untried tiers from the bundle's own model, recalibrated on this log by folds.",
    f"DR clipped is narrow, but biased where it cuts weights above {CLIP:g}. DR shrunk is the figure to quote: its",
    "interval is DR's and does not need the model to be right, its value leans on the model where DR does not object.",
)


@dataclass(frozen=True, slots=True)
class OffPolicyReport:
    """Estimates for one policy on one log.

    `quality` and `cost` (USD per request) each come from the rows on which that is known; `drawn` counts the rows
    whose first tier a policy drew with known propensities, `left_out` the others by reason; `share` is the share of
    the drawn requests that the policy would send to each tier first.
    """

    quality_asked: float
    n: int
    drawn: int
    left_out: Mapping[str, int]
    share: Mapping[str, float]
    quality: OffPolicy
    cost: OffPolicy

    @property
    def refused(self) -> bool:
        """Whether the log says too little about the policy's quality or its cost."""
        return self.quality.overlap.reason is not None or self.cost.overlap.reason is not None

    def to_dict(self) -> dict[str, Any]:
        """As JSON; costs are USD per request."""
        return {
            "quality_asked": self.quality_asked,
            "n": self.n,
            "n_drawn": self.drawn,
            "left_out": dict(self.left_out),
            "share": dict(self.share),
            "quality": _record(self.quality),
            "cost_usd": _record(self.cost),
            "refused": self.refused,
            "notes": list(_NOTES),
        }

    def to_text(self) -> str:
        """For people: the table of estimates, what is behind them, and why there are none."""
        shares = ", ".join(f"{share:.1%} {name}" for name, share in self.share.items())
        lines = [
            f"The policy at quality {self.quality_asked:g} on {self.drawn:,} of {self.n:,} requests that another "
            f"policy answered; it sends {shares}"
        ]
        lines += [f"left out: {count:,} {why}" for why, count in self.left_out.items() if count]
        reasons = {"quality": self.quality.overlap.reason, "cost": self.cost.overlap.reason}
        lines += [f"{what} refused: {reason}" for what, reason in reasons.items() if reason is not None]
        estimates = [
            (label, _cell(self.quality.figures[name], 1.0, ".4f"), _cell(self.cost.figures[name], 1000.0, ".4g"))
            for name, label in ESTIMATORS.items()
        ]
        return "\n\n".join(
            (
                "\n".join(lines),
                table(("estimator", "quality", "USD per 1k"), estimates),
                table(("overlap", "quality", "cost"), self._overlap()),
                "\n".join(_NOTES),
            )
        )

    def _overlap(self) -> list[tuple[str, str, str]]:
        sides = (self.quality.overlap, self.cost.overlap)
        cells = {
            "requests": [f"{side.n:,}" for side in sides],
            "effective sample size": [f"{side.ess:,.0f}" for side in sides],
            "largest weight": [f"{side.max_weight:.1f}" for side in sides],
            "mean weight (1 expected)": [f"{side.mean_weight:.3f}" for side in sides],
            "without support": [f"{side.unsupported:.2%}" for side in sides],
        }
        return [(name, quality, cost) for name, (quality, cost) in cells.items()]


def offpolicy_report(scored: Scored, policy: PolicySpec, *, quality: float) -> OffPolicyReport:
    """Estimate what a policy would have been worth on a log that another policy wrote.

    The reward of a row is the known quality of the first tier that was tried, its cost that of this one answer. The
    target is what the policy tries first at the quality asked for, without exploration and without hard rules.

    Args:
        scored: The log, scored by the bundle; its adequacy and expected cost are the reward models.
        policy: The bundle's ladder and solved frontier.
        quality: Share of the best tier's quality that the policy is to keep.

    Raises:
        DataError: When no row says which tier a policy drew and with which probability, or one contradicts itself.
    """
    data = scored.dataset
    drawn = (data.action >= 0) & ~np.isnan(data.propensity).any(axis=1)
    if not drawn.any():
        raise DataError(
            f"none of the {len(data)} requests says which tier was drawn first, and with which probability: log "
            "`propensity` with every decision (the service does), or measure on audits, without --offpolicy"
        )
    chosen = scored.first(policy, quality)
    rows = np.flatnonzero(drawn)
    counts = np.bincount(chosen[rows], minlength=len(data.tiers)) / len(rows)
    target = np.eye(len(data.tiers))[chosen]
    known = {
        name: rows[~np.isnan(_first(values, data, rows))]
        for name, values in (("quality", data.quality), ("cost", data.cost_usd))
    }
    return OffPolicyReport(
        quality_asked=quality,
        n=len(data),
        drawn=len(rows),
        left_out={
            "that no policy drew (audits, tiers the client named, decisions only)": int((data.action < 0).sum()),
            "without propensities": int((data.action >= 0).sum()) - len(rows),
            "whose first answer has no known quality (they count for cost only)": len(rows) - len(known["quality"]),
            "whose first answer has no known cost (they count for quality only)": len(rows) - len(known["cost"]),
        },
        share=dict(zip(data.tiers, counts.tolist(), strict=True)),
        quality=_estimate(data, known["quality"], data.quality, target, scored.adequacy, (0.0, 1.0)),
        cost=_estimate(data, known["cost"], data.cost_usd, target, scored.cost_usd, (0.0, np.inf)),
    )


def _first(values: F64, data: Dataset, rows: Rows) -> F64:
    first: F64 = values[rows, data.action[rows]]
    return first


def _estimate(
    data: Dataset, rows: Rows, values: F64, target: F64, model: F64, bounds: tuple[float, float]
) -> OffPolicy:
    logged = Logged(data.action[rows], data.propensity[rows], _first(values, data, rows), data.group[rows])
    # Fixed folds: the same log gives the same figures.
    fitted = recalibrated(model[rows], logged, np.random.default_rng(0), bounds=bounds)
    return evaluate_offpolicy(logged, target[rows], fitted)


def _record(result: OffPolicy) -> dict[str, Any]:
    side = result.overlap
    return {
        **{name: figure.to_dict() for name, figure in result.figures.items()},
        "overlap": {
            "n": side.n,
            "ess": side.ess,
            "max_weight": side.max_weight,
            "mean_weight": side.mean_weight,
            "unsupported": side.unsupported,
            "reason": side.reason,
        },
    }


def _cell(figure: Figure, scale: float, form: str) -> str:
    if figure.value is None or figure.low is None or figure.high is None:
        return "refused"
    return f"{figure.value * scale:{form}} [{figure.low * scale:{form}}, {figure.high * scale:{form}}]"
