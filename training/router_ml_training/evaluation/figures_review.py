"""The pictures a reviewer asks for: importance of features, slices, the verifier's confusion, drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from router_ml.registry import require
from router_ml_training.evaluation.canvas import (
    COLOURS,
    Picture,
    blank,
    csv_of,
    finish,
    short_name,
    style,
    tier_colours,
)
from router_ml_training.evaluation.confusion import Confusion
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import Slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Importance", "drift_chart", "feature_importance", "slice_table", "verifier_confusion"]

_MOST_BARS = 16
_ROW = 0.29  # inches that a line of a chart takes
_WIDEST = 4
_LONG_NAME = 14  # from here on a name has a line of its own over its panel
_CELL = 7  # characters of a count that a cell has room for in large type


@dataclass(frozen=True, slots=True)
class Importance:
    """What one part of the features is worth on held-out rows.

    `loss` is how much the mean log loss rises without it (nats), with its 95 % interval; `decisions` the share of
    requests that then go to another tier. `group` says that it is a whole block.
    """

    name: str
    loss: float
    low: float
    high: float
    decisions: float
    group: bool


def feature_importance(bars: Sequence[Importance], *, title: str, simulated: bool = False) -> Picture:
    """What predictions and decisions lose when a feature is shuffled between requests; whole blocks stand out.

    Args:
        bars: The features, the most important first; the first sixteen are drawn.
        title: The message.
        simulated: Whether the data are simulated.
    """
    shown = list(bars)[:_MOST_BARS]
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 1.5 + _ROW * max(len(shown), 3))
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
        place = np.arange(len(shown))[::-1]
        for axes, values in ((left, [one.loss for one in shown]), (right, [100 * one.decisions for one in shown])):
            axes.barh(place, values, height=0.62, color=[COLOURS["router" if one.group else "random"] for one in shown])
            axes.grid(axis="y", visible=False)
        for y, one in zip(place, shown, strict=True):
            left.plot([one.low, one.high], [y, y], color=COLOURS["ink"], lw=1.2)
        left.axvline(0, color=COLOURS["muted"], lw=0.8)
        _names(left, place, [one.name for one in shown])
        left.set_xlabel("log loss added, nats, with 95 % interval")
        right.set_xlabel("decisions changed, %")
        for axes in (left, right):
            axes.spines["left"].set_visible(False)
        handles = [
            left.barh([0], [0], color=COLOURS[name], label=label)
            for name, label in (("router", "a whole block"), ("random", "one column"))
        ]
        figure.legend(handles=handles, loc="outside lower left", ncols=2, labelcolor=COLOURS["ink"])
        alt = "What is lost when a feature is shuffled. " + " ".join(
            f"{one.name}: {one.loss:.4f} nats, {one.decisions:.1%} of decisions." for one in shown
        )
        rows = [(one.name, one.loss, one.low, one.high, one.decisions, int(one.group)) for one in shown]
        data = csv_of(("feature", "log_loss_added", "low", "high", "decisions_changed", "block"), rows)
        return finish(figure, "feature_importance", title, alt, simulated=simulated, data=data)


def slice_table(slices: Sequence[Slice], *, quality: float, title: str, simulated: bool = False) -> Picture:
    """Quality kept and saving per part of the traffic, with intervals.

    Args:
        slices: The parts, in this order from above; the first is everything.
        quality: Share of the best tier's quality that was asked for; drawn as a line.
        title: The message.
        simulated: Whether the data are simulated.
    """
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 1.2 + _ROW * 1.15 * max(len(slices), 3))
        left, right = figure.subplots(1, 2, sharey=True)
        place = np.arange(len(slices))[::-1]
        for axes, figures in ((left, [s.quality_kept for s in slices]), (right, [s.saving for s in slices])):
            _dots(axes, place, figures)
            axes.grid(axis="y", visible=False)
            axes.spines["left"].set_visible(False)
            axes.margins(x=0.06)
        left.axvline(100 * quality, color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)))
        left.annotate(
            f"asked for {100 * quality:.4g}",
            (100 * quality, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=COLOURS["accent"],
        )
        right.axvline(0, color=COLOURS["muted"], lw=0.8)
        _names(left, place, [f"{one.name}  {one.n:,}" for one in slices])
        left.set_ylim(-0.6, len(slices) - 0.4)
        left.set_xlabel("quality kept, % of the best tier")
        right.set_xlabel("cost saved, %")
        alt = "Quality kept and saving per slice. " + " ".join(
            f"{one.name}: {one.n} requests, kept {_told(one.quality_kept)}, saved {_told(one.saving)}."
            for one in slices
        )
        header = ("slice", "requests", "quality_kept", "kept_low", "kept_high", "saving", "saving_low", "saving_high")
        rows = [(one.name, one.n, *_ends(one.quality_kept), *_ends(one.saving)) for one in slices]
        return finish(figure, "slice_table", title, alt, simulated=simulated, data=csv_of(header, rows))


def verifier_confusion(tables: Sequence[Confusion], *, rule: str, title: str, simulated: bool = False) -> Picture:
    """Accepted and rejected answers against the truth, per tier: counts, and their share of each truth.

    Args:
        tables: One per tier that was judged.
        rule: When an answer is accepted, said below.
        title: The message.
        simulated: Whether the data are simulated.
    """
    columns = min(len(tables), _WIDEST)
    rows = -(-len(tables) // columns)
    shades = tier_colours(2)
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(max(2.9 * columns, 5.2), 2.9 * rows + 0.4)
        grid = figure.subplots(rows, columns, squeeze=False)
        for i, axes in enumerate(grid.flat):
            axes.set_axis_off()
            if i < len(tables):
                _matrix(axes, tables[i], shades)
        figure.supxlabel(rule, x=0.01, ha="left", fontsize=9, color=COLOURS["muted"])
        alt = f"The verifier's decisions, {rule}. " + " ".join(
            f"{one.tier}: of {one.accepted_good + one.rejected_good} good answers {one.rejected_good} rejected, "
            f"of {one.accepted_poor + one.rejected_poor} poor ones {one.accepted_poor} accepted."
            for one in tables
        )
        header = ("tier", "judgement", "truth", "answers", "share_of_truth", "low", "high")
        data = csv_of(header, [line for one in tables for line in _cells(one)])
        extra = {"tier-low": shades[0], "tier-high": shades[1]}
        return finish(figure, "verifier_confusion", title, alt, simulated=simulated, data=data, extra=extra)


def drift_chart(shifts: Sequence[tuple[str, float, float]], *, title: str, simulated: bool = False) -> Picture:
    """How far each feature has shifted, in times of the shift that is allowed; what is beyond stands out.

    Args:
        shifts: Name, shift, and the shift that is allowed (above 0), the largest first; the first sixteen are drawn.
        title: The message.
        simulated: Whether the data are simulated.
    """
    shown = list(shifts)[:_MOST_BARS]
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 1.2 + _ROW * max(len(shown), 3))
        axes = figure.add_subplot()
        place = np.arange(len(shown))[::-1]
        times = [value / limit for _, value, limit in shown]
        colours = [COLOURS["accent" if ratio > 1 else "random"] for ratio in times]
        axes.barh(place, times, height=0.62, color=colours)
        for y, ratio, (_, value, _) in zip(place, times, shown, strict=True):
            axes.annotate(
                f"{value:.3g}",
                (max(ratio, 0.0), y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=COLOURS["ink"],
            )
        axes.axvline(1, color=COLOURS["accent"], lw=1.2, ls=(0, (2, 2)))
        axes.set_xlim(0, 1.12 * max([1.0, *times]))
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        _names(axes, place, [name for name, _, _ in shown])
        axes.set_xlabel("shift, in times of what is allowed")
        beyond = [name for name, value, limit in shown if value > limit]
        alt = f"Shift of each feature. Beyond what is allowed: {', '.join(beyond) or 'none'}."
        data = csv_of(("feature", "shift", "allowed"), shown)
        return finish(figure, "drift", title, alt, simulated=simulated, data=data)


def _names(axes: Axes, place: np.ndarray, names: Sequence[str]) -> None:
    axes.set_yticks(place, names)
    axes.tick_params(axis="y", labelcolor=COLOURS["ink"])


def _dots(axes: Axes, place: np.ndarray, figures: Sequence[Figure]) -> None:
    for i, (y, figure) in enumerate(zip(place, figures, strict=True)):
        if figure.value is None:
            beside = ("axes fraction", "data")
            axes.annotate("undefined", (0.02, y), xycoords=beside, va="center", color=COLOURS["muted"])
            continue
        colour = COLOURS["ink" if i == 0 else "router"]
        if figure.low is not None and figure.high is not None:
            axes.plot([100 * figure.low, 100 * figure.high], [y, y], color=colour, lw=1.6)
        axes.plot([100 * figure.value], [y], marker="o", ms=6, color=colour)


def _matrix(axes: Axes, one: Confusion, shades: Sequence[str]) -> None:
    """Two by two cells: judgements from above, truths from the left; what is wrong is drawn in the accent colour."""
    good, poor = one.accepted_good + one.rejected_good, one.accepted_poor + one.rejected_poor
    cells = (
        (0, 1, one.accepted_good, good, "right"),
        (1, 1, one.accepted_poor, poor, "missed"),
        (0, 0, one.rejected_good, good, "needless"),
        (1, 0, one.rejected_poor, poor, "right"),
    )
    for x, y, count, of, word in cells:
        fine = word == "right"
        axes.add_patch(
            require("matplotlib.patches", extra="training", why="to draw figures").Rectangle(
                (x + 0.03, y + 0.03),
                0.94,
                0.94,
                facecolor=shades[0] if fine else "none",
                edgecolor=shades[0] if fine else COLOURS["accent"],
                linewidth=1.4,
            )
        )
        ink = COLOURS["ink"] if fine else COLOURS["accent"]
        size = 15 * min(1.0, _CELL / len(f"{count:,}"))
        axes.text(
            x + 0.5, y + 0.58, f"{count:,}", ha="center", va="center", fontsize=size, fontweight="bold", color=ink
        )
        share = f"{count / of:.1%} of {'good' if x == 0 else 'poor'}" if of else "none known"
        axes.text(x + 0.5, y + 0.3, share, ha="center", va="center", fontsize=8.5, color=ink)
    axes.set(xlim=(-0.32, 2), ylim=(-0.05, 2.3), aspect="equal")
    for middle, word in ((0.5, "good answer"), (1.5, "poor answer")):
        axes.text(middle, 2.08, word, ha="center", va="center", fontsize=9, color=COLOURS["muted"])
    for middle, word in ((1.5, "accepted"), (0.5, "rejected")):
        axes.text(-0.08, middle, word, ha="center", va="center", fontsize=9, rotation=90, color=COLOURS["muted"])
    name = short_name(one.tier)
    joint = ": " if len(name) < _LONG_NAME else "\n"
    axes.set_title(f"{name}{joint}{one.n:,} answers", fontsize=10, loc="left")


def _cells(one: Confusion) -> list[tuple[object, ...]]:
    needless, missed = one.needless, one.missed
    return [
        (one.tier, "accepted", "good", one.accepted_good, *_rest(needless)),
        (one.tier, "rejected", "good", one.rejected_good, *_ends(needless)),
        (one.tier, "accepted", "poor", one.accepted_poor, *_ends(missed)),
        (one.tier, "rejected", "poor", one.rejected_poor, *_rest(missed)),
    ]


def _ends(figure: Figure) -> tuple[float | None, float | None, float | None]:
    return figure.value, figure.low, figure.high


def _rest(figure: Figure) -> tuple[float | None, float | None, float | None]:
    """The other part of a share, with its interval the other way round."""
    value, high, low = (None if part is None else 1.0 - part for part in _ends(figure))
    return value, low, high


def _told(figure: Figure) -> str:
    return "an unknown share" if figure.value is None else f"{figure.value:.1%}"
