"""Pictures that only a notebook shows, and any picture in the form a notebook takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date

import polars as pl

from router_ml.registry import require
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

__all__ = ["as_html", "traffic_over_time"]

_MOST_LABELS = 8


def as_html(picture: Picture) -> str:
    """Return a picture as HTML on a light ground, which stays legible where a notebook's page is dark."""
    # A notebook's page has variables of the same names, and they mean other colours there.
    svg = re.sub(r"var\(--[a-z0-9-]+, (#[0-9a-f]{6})\)", r"\1", picture.svg)
    ground = "background:#fff;color:#1c2530;border-radius:6px;padding:8px;overflow-x:auto;max-width:100%"
    return f'<figure style="margin:0;{ground}">{svg}</figure>'


def traffic_over_time(table: pl.DataFrame, tiers: tuple[str, ...], *, simulated: bool = False) -> Picture:
    """Draw live requests per day by the tier whose answer was given, and the share that was escalated.

    Args:
        table: What `logbook.interaction_table` returns.
        tiers: Names in ladder order.
        simulated: Whether the data are simulated.
    """
    live = table.filter((pl.col("mode") == "live") & pl.col("last_tier").is_not_null())
    live = live.with_columns(day=pl.col("ts").dt.date())
    by_day = (
        live.group_by("day")
        .agg(*((pl.col("last_tier") == name).sum().alias(name) for name in tiers), escalated=pl.col("escalated").mean())
        .sort("day")
    )
    shades = tier_colours(len(tiers))
    # Days without a request take no room: logs of different times may lie months apart.
    days = list(range(len(by_day)))
    dates: list[date] = by_day["day"].to_list()
    places = _labelled(dates)
    with require("matplotlib", extra="training", why="to draw figures").rc_context(style()):
        figure = blank(7.4, 4.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        base = [0] * len(days)
        for name, shade in zip(tiers, shades, strict=True):
            counts = by_day[name].to_list()
            above.bar(days, counts, bottom=base, width=0.85, color=shade, label=short_name(name))
            base = [low + count for low, count in zip(base, counts, strict=True)]
        escalated = [100 * (share or 0.0) for share in by_day["escalated"].to_list()]
        below.plot(days, escalated, color=COLOURS["accent"], lw=1.6, marker="o", ms=3)
        below.set_ylim(bottom=0)
        below.set_xticks(places, [dates[i].isoformat() for i in places], rotation=30, ha="right")
        gaps = _gaps(dates)
        for gap in gaps:
            for axes in (above, below):
                axes.axvline(gap - 0.5, color=COLOURS["muted"], lw=0.8, ls=(0, (2, 2)))
        above.set_ylabel("requests a day")
        below.set_ylabel("escalated, %")
        for axes in (above, below):
            axis_line(axes)
            axes.grid(axis="x", visible=False)
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside right center", labelcolor=COLOURS["ink"])
        below.set_xlabel("days with requests; a dashed line stands for those without" if gaps else "")
        alt = f"Live requests per day over {len(days)} days, by the tier that answered, and the share escalated."
        data = csv_of(("day", *tiers, "escalated"), by_day.select("day", *tiers, "escalated").rows())
        extra = {f"tier-{i}": shade for i, shade in enumerate(shades)}
        return finish(figure, "traffic", "Who answered, day by day", alt, simulated=simulated, data=data, extra=extra)


def _gaps(dates: Sequence[date]) -> list[int]:
    """The days before which there is one without a request."""
    return [i for i in range(1, len(dates)) if (dates[i] - dates[i - 1]).days > 1]


def _labelled(dates: Sequence[date]) -> list[int]:
    """The days that get a label: the first after each gap before all others, with room between any two."""
    room = -(-len(dates) // _MOST_LABELS)
    found: list[int] = []
    for i in [*_gaps(dates), *range(0, len(dates), room or 1)]:
        if len(found) <= _MOST_LABELS and all(abs(i - other) >= room for other in found):
            found.append(i)
    return sorted(found)
