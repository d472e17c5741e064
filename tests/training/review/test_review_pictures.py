"""Pictures of notebooks, and any picture in the form a notebook takes."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta

import polars as pl

from router_ml_training.review.pictures import as_html, traffic_over_time

START = datetime(2026, 3, 1, tzinfo=UTC)


def table(n_days: int) -> pl.DataFrame:
    rows = [
        (START + timedelta(days=day), "live", tier, day == 0) for day in range(n_days) for tier in ("small", "large")
    ]
    return pl.DataFrame(rows, schema=["ts", "mode", "last_tier", "escalated"], orient="row")


def test_traffic_is_drawn_by_day_and_tier_with_its_data() -> None:
    audit = pl.DataFrame({"ts": [START], "mode": ["audit"], "last_tier": ["large"], "escalated": [False]})
    picture = traffic_over_time(pl.concat([table(30), audit]), ("small", "large"), simulated=True)
    lines = list(csv.DictReader(io.StringIO(picture.data)))
    assert (len(lines), lines[0]) == (30, {"day": "2026-03-01", "small": "1", "large": "1", "escalated": "1"})
    assert "simulated data" in picture.svg
    assert "30 days" in picture.alt


def test_a_day_after_a_gap_is_named_and_no_two_labels_are_close() -> None:
    late = START + timedelta(days=250)
    rows = [(START + timedelta(days=day), "live", "small", False) for day in range(19)] + [
        (late, "live", "small", True)
    ]
    frame = pl.DataFrame(rows, schema=["ts", "mode", "last_tier", "escalated"], orient="row")
    svg = traffic_over_time(frame, ("small", "large")).svg
    named = re.findall(r">(2026-\d\d-\d\d)<", svg)
    assert named[-1] == late.date().isoformat()
    assert 5 <= len(named) <= 9
    assert "a dashed line stands for those without" in svg


def test_no_traffic_can_be_drawn() -> None:
    assert traffic_over_time(
        table(0).cast(
            {"mode": pl.String, "last_tier": pl.String, "escalated": pl.Boolean, "ts": pl.Datetime("us", "UTC")}
        ),
        ("a", "b"),
    ).png


def test_colours_are_its_own_on_a_page_whose_variables_mean_other_colours() -> None:
    html = as_html(traffic_over_time(table(3), ("small", "large")))
    assert "var(--" not in html
    assert re.search(r"fill: ?#[0-9a-f]{6}", html)
    assert "background:#fff" in html
