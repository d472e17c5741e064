"""The pictures of a report: cost against quality, calibration, tier mix, scores. Each returns a `Picture`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from router_ml.registry import require
from router_ml_training.evaluation.calibration_metrics import Reliability
from router_ml_training.evaluation.canvas import (
    COLOURS,
    Picture,
    axis_line,
    blank,
    csv_of,
    finish,
    short_name,
    style,
    tier_colours,
)
from router_ml_training.evaluation.captions import Caption, place_captions
from router_ml_training.evaluation.hull import hull
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Curve, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["cost_quality", "reliability_diagram", "score_histogram", "tier_mix"]

_DASHED, _DOTTED, _MIXED = (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5))
# Curves without a look of their own, in their order: as many as there are learners, no two alike without their colours.
_LOOKS: tuple[dict[str, Any], ...] = (
    {"color": COLOURS["muted"]},
    {"color": COLOURS["length"], "ls": _MIXED},
    {"color": COLOURS["oracle"], "ls": _DASHED},
    {"color": COLOURS["accent"], "ls": _DOTTED},
    {"color": COLOURS["ink"], "ls": _MIXED},
    {"color": COLOURS["muted"], "ls": _DOTTED},
    {"color": COLOURS["length"], "ls": _DASHED},
    {"color": COLOURS["oracle"], "ls": _DOTTED},
    {"color": COLOURS["accent"], "ls": _MIXED},
    {"color": COLOURS["ink"], "ls": _DASHED},
)
_LEGEND_COLUMNS = 4
_LONG_NAME = 14  # from here on a name has a line of its own over its panel
_MOST_POINTS = 800  # a curve of 14,000 points looks the same with 800, and its SVG is 17 times smaller


def cost_quality(
    router: Curve,
    *,
    tiers: Sequence[str],
    title: str,
    baselines: Mapping[str, Curve] | None = None,
    name: str = "router",
    operating: tuple[float, float] | None = None,
    target: float | None = None,
    note: str | None = None,
    simulated: bool = False,
) -> Picture:
    """Cost against quality: the router's curve, its baselines, the random mix, the single tiers and the chosen point.

    Args:
        router: Curve on test rows.
        tiers: Names in ladder order, as many as the curve has single tiers.
        title: The message.
        baselines: Further curves; `oracle` and `prompt_length` have looks of their own.
        name: What the first curve is called.
        operating: Mean USD per request and mean quality at the chosen point.
        target: Quality asked for, relative to the best tier; drawn as a line.
        note: Words beside the chosen point.
        simulated: Whether the data are simulated.
    """
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        shown = {other: curve for other, curve in (baselines or {}).items() if other != "random"}
        figure = blank(7.4, 4.3 + 0.2 * (1 + (len(shown) + 1) // _LEGEND_COLUMNS))
        axes = figure.add_subplot()
        _line(axes, router, color=COLOURS["router"], lw=2.4, label=name, zorder=5)
        for i, (other, curve) in enumerate(shown.items()):
            _baseline(axes, other, curve, _LOOKS[i % len(_LOOKS)])
        usd, worth = hull(router.tier_cost, router.tier_quality)
        axes.plot(1000 * usd, worth, color=COLOURS["random"], lw=1.6, ls=(0, (4, 2.5)), label="random mix of tiers")
        axes.scatter(1000 * router.tier_cost, router.tier_quality, s=46, color=COLOURS["ink"], zorder=6, linewidths=0)
        if target is not None:
            words = f"{100 * target:.4g} % of\n{short_name(tiers[router.best], 14)}"
            _target_line(axes, target * float(router.tier_quality[router.best]), words)
        axes.set_xlabel("mean cost, USD per 1,000 requests")
        axes.set_ylabel("mean quality")
        axes.margins(0.08, 0.1)
        axis_line(axes)
        if operating is not None:
            look: dict[str, Any] = {
                "color": COLOURS["accent"],
                "edgecolors": COLOURS["paper"],
                "linewidths": 1.6,
                "zorder": 8,
            }
            axes.scatter([1000 * operating[0]], [operating[1]], s=110, **look)
        figure.legend(loc="outside lower left", ncols=_LEGEND_COLUMNS, handlelength=2.8, labelcolor=COLOURS["ink"])
        place_captions(axes, _captions(router, tiers, operating, note))
        alt = f"Mean quality against mean cost. {_described(router, tiers)}" + (
            "" if operating is None else f" Operating point: {1000 * operating[0]:.4g} USD, {operating[1]:.4f}."
        )
        data = _cost_quality_data({name: router, **shown}, tiers, (usd, worth), operating, target)
        return finish(figure, "cost_quality", title, alt, simulated=simulated, data=data)


def _cost_quality_data(
    curves: Mapping[str, Curve],
    tiers: Sequence[str],
    mix: tuple[Floats, Floats],
    operating: tuple[float, float] | None,
    target: float | None,
) -> str:
    router = next(iter(curves.values()))
    drawn = {name: _picked(_until_peak(name, curve)) for name, curve in curves.items()} | {"random mix": mix}
    rows = [(name, 1000 * float(x), float(y)) for name, line in drawn.items() for x, y in zip(*line, strict=True)]
    singles = zip(tiers, router.tier_cost, router.tier_quality, strict=True)
    rows += [(f"always {name}", 1000 * float(x), float(y)) for name, x, y in singles]
    if operating is not None:
        rows.append(("operating point", 1000 * operating[0], operating[1]))
    if target is not None:
        rows.append(("quality asked for", float("nan"), target * float(router.tier_quality[router.best])))
    return csv_of(("series", "usd_per_1000_requests", "quality"), rows)


def _described(curve: Curve, tiers: Sequence[str]) -> str:
    singles = zip(tiers, curve.tier_cost, curve.tier_quality, strict=True)
    return " ".join(f"Always {name}: {1000 * usd:.4g} USD, {worth:.4f}." for name, usd, worth in singles)


def _line(axes: Axes, curve: Curve, **look: Any) -> None:
    usd, quality = _picked(curve)
    axes.plot(1000 * usd, quality, **look)


def _picked(curve: Curve) -> tuple[Floats, Floats]:
    """The costs and qualities of a curve that are drawn."""
    picked = np.unique(np.linspace(0, curve.cost.size - 1, min(curve.cost.size, _MOST_POINTS)).round().astype(np.intp))
    return curve.cost[picked], curve.quality[picked]


def _until_peak(name: str, curve: Curve) -> Curve:
    if name != "oracle":
        return curve
    end = int(np.argmax(curve.quality)) + 1  # past its peak it only pays more for less
    return replace(curve, cost=curve.cost[:end], quality=curve.quality[:end])


def _baseline(axes: Axes, name: str, curve: Curve, other: dict[str, Any]) -> None:
    looks: dict[str, dict[str, Any]] = {
        "oracle": {"color": COLOURS["oracle"], "ls": (0, (1, 1.6)), "label": "oracle, knows every outcome"},
        "prompt_length": {"color": COLOURS["length"], "label": "prompt length"},
    }
    look = looks.get(name, {**other, "label": short_name(name.replace("_", " "))})
    _line(axes, _until_peak(name, curve), lw=1.6, zorder=4, **look)


def _captions(
    curve: Curve, tiers: Sequence[str], operating: tuple[float, float] | None, note: str | None
) -> list[Caption]:
    """The note of the chosen point first, then every tier; the dearest over its point, curves come to it from below."""
    dearest = int(np.argmax(curve.tier_cost))
    singles = [
        Caption(
            f"always {short_name(name)}", (1000 * float(curve.tier_cost[i]), float(curve.tier_quality[i])), i == dearest
        )
        for i, name in enumerate(tiers)
    ]
    if operating is None or not note:
        return singles
    paper = {"facecolor": COLOURS["paper"], "edgecolor": "none", "pad": 1.5}
    look = {"color": COLOURS["accent"], "fontweight": "bold", "bbox": paper, "zorder": 9}
    return [Caption(note, (1000 * operating[0], operating[1]), size=10.0, look=look), *singles]


def _target_line(axes: Axes, quality: float, words: str) -> None:
    axes.axhline(quality, color=COLOURS["accent"], lw=0.9, ls=(0, (2, 2)), zorder=2)
    axes.annotate(
        words,
        (1, quality),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        ha="left",
        va="center",
        color=COLOURS["accent"],
    )


def reliability_diagram(
    panels: Mapping[str, Reliability],
    *,
    title: str,
    ece: Mapping[str, Figure] | None = None,
    simulated: bool = False,
) -> Picture:
    """Predicted against observed adequacy per tier, with 95 % intervals, and how the predictions are spread.

    Args:
        panels: Tier name to its reliability, in ladder order.
        title: The message.
        ece: Tier name to its expected calibration error, printed over the panel.
        simulated: Whether the data are simulated.
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(max(2.6 * columns, 5.2) + 0.3, 3.4 * rows + 0.5, square=True)
        grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=(5, 1) * rows)
        for i in range(rows * columns):
            axes, strip = (grid[2 * (i // columns) + part, i % columns] for part in (0, 1))
            if i >= len(panels):
                axes.set_axis_off()
                strip.set_axis_off()
                continue
            tier = list(panels)[i]
            _reliability_panel(axes, strip, panels[tier], first=i % columns == 0)
            error = None if ece is None else ece[tier].value
            shown = short_name(tier)
            joint = ": " if len(shown) < _LONG_NAME else "\n"
            axes.set_title(shown if error is None else f"{shown}{joint}ECE {error:.3f}", fontsize=10, loc="left")
        alt = "Predicted against observed adequacy. " + " ".join(
            f"{tier}: predictions {bins.predicted.min():.2f} to {bins.predicted.max():.2f}, "
            f"largest difference {np.abs(bins.predicted - bins.observed).max():.3f}."
            for tier, bins in panels.items()
        )
        data = _reliability_data(panels)
        return finish(figure, "reliability", title, alt, simulated=simulated, data=data)


def _reliability_data(panels: Mapping[str, Reliability]) -> str:
    bins = [
        (tier, "bin", *map(float, part))
        for tier, one in panels.items()
        for part in zip(one.predicted, one.observed, one.low, one.high, one.count, strict=True)
    ]
    strips = [
        (tier, "spread", (i + 0.5) / one.spread.size, None, None, None, float(count))
        for tier, one in panels.items()
        for i, count in enumerate(one.spread)
    ]
    return csv_of(("tier", "series", "predicted", "observed", "low", "high", "requests"), [*bins, *strips])


def _reliability_panel(axes: Axes, strip: Axes, bins: Reliability, *, first: bool) -> None:
    axes.plot([0, 1], [0, 1], color=COLOURS["random"], lw=1.2, ls=(0, (4, 2.5)))
    axes.vlines(bins.predicted, bins.low, bins.high, color=COLOURS["router"], lw=3.5, alpha=0.3)
    axes.plot(bins.predicted, bins.observed, color=COLOURS["router"], lw=1.2, marker="o", ms=4, clip_on=False, zorder=5)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks, box_aspect=1)
    axes.tick_params(labelbottom=False, labelleft=first)
    strip.bar(np.arange(0.025, 1, 0.05), bins.spread, width=0.044, color=COLOURS["random"])
    strip.set(xlim=(0, 1), xticks=ticks, yticks=[], box_aspect=0.2, xlabel="predicted adequacy")
    strip.set_xticklabels(["0", "", "0.5", "", "1"])
    strip.grid(visible=False)
    if first:
        axes.set_ylabel("observed share adequate")
    for side in (axes, strip):
        axis_line(side)


def tier_mix(
    curve: Curve,
    *,
    columns: Sequence[str],
    title: str,
    operating: float | None = None,
    simulated: bool = False,
) -> Picture:
    """Share of requests per tier (or plan) at every quality that the policy can be made to keep.

    Args:
        curve: Curve on test rows.
        columns: Names of the curve's columns, cheapest first.
        title: The message.
        operating: Quality kept at the chosen point on the same rows, relative to the best tier; drawn as a line.
        simulated: Whether the data are simulated.
    """
    best = float(curve.tier_quality[curve.best])
    # Where no tier is ever good, every share of the best is kept by anybody.
    low = min(float(curve.quality[0]) / best, 0.99) if best > 0 else 0.99
    low, high = (low, 1.0) if operating is None else (min(low, operating), max(1.0, operating))
    kept: Floats = np.linspace(low, high, 160)
    found = [curve.cheapest_reaching(quality * best) for quality in kept]
    reached = np.array([point is not None for point in found])
    shares = curve.share[[0 if point is None else point for point in found]][reached]
    shades = tier_colours(len(columns))
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 3.6)
        axes = figure.add_subplot()
        axes.stackplot(
            100 * kept[reached],
            100 * shares.T,
            colors=shades,
            labels=[short_name(name) for name in columns],
            linewidth=0.8,
            edgecolor=COLOURS["paper"],
        )
        if operating is not None:
            axes.axvline(100 * operating, color=COLOURS["accent"], lw=1.6)
            _over(axes, 100 * operating, f"operating point: {100 * operating:.1f}")
        reference = short_name(columns[curve.best])
        axes.set(xlabel=f"quality kept, % of always {reference}", ylabel="share of the answers, %")
        axes.set(xlim=(100 * low, 100 * high), ylim=(0, 100))
        axes.grid(visible=False)
        axis_line(axes)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", labelcolor=COLOURS["ink"])
        alt = "Share of the answers per tier against the quality kept."
        extra = {f"tier-{i}": shade for i, shade in enumerate(shades)}
        drawn = zip(kept[reached].tolist(), shares.tolist(), strict=True)
        data = csv_of(("quality_kept", *columns), [(quality, *part) for quality, part in drawn])
        return finish(figure, "tier_mix", title, alt, simulated=simulated, data=data, extra=extra)


def score_histogram(score: ArrayLike, *, title: str, label: str, simulated: bool = False) -> Picture:
    """How scores are spread.

    Args:
        score: Score of each request, shape (n,).
        title: The message.
        label: What the score is, with its unit.
        simulated: Whether the data are simulated.
    """
    values = np.asarray(score, dtype=np.float64)
    counts, edges = np.histogram(values, bins=48)
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 3.2)
        axes = figure.add_subplot()
        axes.stairs(counts, edges, fill=True, color=COLOURS["router"])
        axes.set(xlabel=label, ylabel="requests")
        axes.set_ylim(bottom=0)
        axis_line(axes)
        share = np.mean(values > 0) if values.size else 0.0
        alt = f"Histogram of {values.size:,} scores, {share:.1%} of them above zero."
        data = csv_of(("from", "to", "requests"), zip(edges[:-1].tolist(), edges[1:].tolist(), counts, strict=True))
        return finish(figure, "scores", title, alt, simulated=simulated, data=data)


def _over(axes: Axes, x: float, words: str) -> None:
    """A label over the upper edge, at a place on the horizontal axis."""
    axes.annotate(
        words,
        (x, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        va="bottom",
        color=COLOURS["accent"],
    )
