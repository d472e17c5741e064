"""Off-policy estimates as tables and a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_ml_training.offpolicy_report import OffPolicyReport, offpolicy_report
from router_ml_training.review.estimates import (
    estimate_table,
    estimates_chart,
    left_out_table,
    overlap_table,
    refusals,
)
from router_ml_training.review.home import open_home, read_sample
from router_ml_training.scored import Scored, score_with_bundle


@pytest.fixture(scope="module")
def scored(review_home: Path) -> Scored:
    home = open_home(review_home, {})
    return score_with_bundle(read_sample(home).dataset, home.bundle(), home.ladder)


@pytest.fixture(scope="module")
def report(scored: Scored, review_home: Path) -> OffPolicyReport:
    return offpolicy_report(scored, open_home(review_home, {}).bundle().policy, quality=0.97)


@pytest.fixture(scope="module")
def refused(scored: Scored, review_home: Path) -> OffPolicyReport:
    """The report on a log whose policy never tried the cheap tier."""
    one_sided = np.where(np.isnan(scored.dataset.propensity), np.nan, [0.0, 1.0])
    rows = np.flatnonzero((scored.dataset.action == 1) & ~np.isnan(one_sided[:, 0]))
    data = replace(scored.dataset, propensity=one_sided)
    policy = open_home(review_home, {}).bundle().policy
    return offpolicy_report(replace(scored, dataset=data).rows(rows), policy, quality=0.97)


def test_every_estimator_has_its_figure_for_quality_and_cost(report: OffPolicyReport) -> None:
    table = estimate_table(report)
    assert len(table) == 2 * len(report.quality.figures)
    dr = table.filter((table["estimator"] == "DR") & (table["of"] == "USD per 1,000")).to_dicts()[0]
    assert dr["value"] == pytest.approx(1000 * report.cost.figures["dr"].value)
    assert dr["low"] < dr["value"] < dr["high"]
    assert refusals(report) == []


def test_overlap_says_how_much_the_log_is_worth(report: OffPolicyReport) -> None:
    quality, cost = overlap_table(report).to_dicts()
    assert (quality["rows"], cost["rows"]) == (report.quality.overlap.n, report.cost.overlap.n)
    assert 0 < quality["ess"] < quality["rows"]
    assert quality["largest_weight"] == pytest.approx(2.0)
    assert quality["without_support"] == 0.0


def test_what_counts_for_nothing_is_listed_with_its_reason(report: OffPolicyReport) -> None:
    rows = left_out_table(report).to_dicts()
    assert rows[0]["requests"] == 600
    assert "no policy drew" in rows[0]["why"]


def test_a_refusal_is_said_with_its_reason_in_the_list_the_table_and_the_picture(refused: OffPolicyReport) -> None:
    assert refusals(refused)[0].startswith("quality is refused: ")
    table = estimate_table(refused).filter(of="quality", estimator="IPS").to_dicts()[0]
    assert table["value"] is None
    assert "support" in table["refused"]
    assert estimates_chart(refused).svg.count(">refused<") == sum(
        figure.value is None for figure in refused.quality.figures.values()
    )


def test_the_picture_holds_every_estimate_as_data(report: OffPolicyReport) -> None:
    picture = estimates_chart(report, simulated=True)
    assert len(picture.data.splitlines()) == 1 + len(report.quality.figures)
    assert "simulated data" in picture.svg
