"""Off-policy estimates as tables and a picture: every estimator, what is behind them, and what is refused and why."""

from __future__ import annotations

import polars as pl

from router_ml.registry import require
from router_ml_training.evaluation.canvas import COLOURS, Picture, blank, csv_of, finish, style
from router_ml_training.evaluation.offpolicy import ESTIMATORS
from router_ml_training.offpolicy_report import OffPolicyReport

__all__ = ["estimate_table", "estimates_chart", "left_out_table", "overlap_table", "refusals"]


def estimate_table(report: OffPolicyReport) -> pl.DataFrame:
    """Return every estimator's quality and cost (USD per 1,000 requests) with intervals; null where it is refused."""
    rows = [
        (label, what, *(None if part is None else scale * part for part in (one.value, one.low, one.high)), one.reason)
        for what, side, scale in (("quality", report.quality, 1.0), ("USD per 1,000", report.cost, 1000.0))
        for name, label in ESTIMATORS.items()
        for one in (side.figures[name],)
    ]
    numbers = dict.fromkeys(("value", "low", "high"), pl.Float64)
    schema = {"estimator": pl.String, "of": pl.String, **numbers, "refused": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def overlap_table(report: OffPolicyReport) -> pl.DataFrame:
    """Return how much the log says about the policy: rows, effective sample size, weights, support."""
    rows = [
        (what, side.n, side.ess, side.max_weight, side.mean_weight, side.unsupported, side.reason)
        for what, side in (("quality", report.quality.overlap), ("cost", report.cost.overlap))
    ]
    numbers = dict.fromkeys(("ess", "largest_weight", "mean_weight", "without_support"), pl.Float64)
    schema = {"of": pl.String, "rows": pl.Int64, **numbers, "refused": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def left_out_table(report: OffPolicyReport) -> pl.DataFrame:
    """Return which requests count for nothing here, and why."""
    rows = [(count, f"requests {why}") for why, count in report.left_out.items() if count]
    return pl.DataFrame(rows, schema={"requests": pl.Int64, "why": pl.String}, orient="row")


def refusals(report: OffPolicyReport) -> list[str]:
    """Return what is refused and why, one sentence each; none where the log says enough."""
    sides = (("quality", report.quality), ("cost", report.cost))
    return [f"{what} is refused: {side.overlap.reason}" for what, side in sides if side.overlap.reason is not None]


def estimates_chart(report: OffPolicyReport, *, simulated: bool = False) -> Picture:
    """Draw the estimators of quality with their intervals, one below the other."""
    figures = [(label, report.quality.figures[name]) for name, label in ESTIMATORS.items()]
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 1.1 + 0.33 * len(figures))
        axes = figure.add_subplot()
        for y, (_, one) in zip(range(len(figures), 0, -1), figures, strict=True):
            if one.value is None:
                beside = ("axes fraction", "data")
                axes.annotate("refused", (0.01, y), xycoords=beside, va="center", color=COLOURS["accent"])
                continue
            if one.low is not None and one.high is not None:
                axes.plot([one.low, one.high], [y, y], color=COLOURS["router"], lw=1.8)
            axes.plot([one.value], [y], marker="o", ms=6, color=COLOURS["router"])
        axes.set_yticks(range(len(figures), 0, -1), [label for label, _ in figures])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        axes.set_ylim(0.4, len(figures) + 0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("mean quality of first answers")
        rows = [(label, one.value, one.low, one.high, one.reason) for label, one in figures]
        data = csv_of(("estimator", "quality", "low", "high", "refused"), rows)
        title = f"Estimated quality at {report.quality_asked:g}"
        alt = "Estimated quality. " + " ".join(
            f"{label}: {'refused' if one.value is None else f'{one.value:.4f}'}." for label, one in figures
        )
        return finish(figure, "off_policy", title, alt, simulated=simulated, data=data)
