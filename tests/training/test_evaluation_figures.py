"""Curves, panels and mixes of odd ladders: many tiers, long names, one that is always best, prices of nothing."""

from __future__ import annotations

import csv
import io
import re

import numpy as np
import pytest

from router_ml_training.evaluation.calibration_metrics import reliability
from router_ml_training.evaluation.canvas import Picture, short_name
from router_ml_training.evaluation.curves import curve_of, price_sweep
from router_ml_training.evaluation.figures import cost_quality, reliability_diagram, score_histogram, tier_mix
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Curve, Outcomes

LONG = "the-largest-model-of-the-department-of-rather-long-names-v2"


def curve(n_tiers: int, quality: np.ndarray | None = None, *, price: float = 1e-4) -> Curve:
    rng = np.random.default_rng(0)
    chance = np.clip(np.linspace(0.5, 0.9, n_tiers) + rng.normal(0, 0.15, (200, 1)), 0, 1)
    truth = (rng.random(chance.shape) < chance).astype(float) if quality is None else np.tile(quality, (200, 1))
    cost = price * np.arange(1, n_tiers + 1) * rng.uniform(1, 2, (200, 1))
    return curve_of(price_sweep(chance, cost, rng=rng), Outcomes(truth, cost))


def lines(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.data)))


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert short_name("gpt-4o-mini-2024-07-18") == "gpt-4o-mini-2024-07-18"
    assert short_name(f"{LONG}-7") == "the-largest-m…ng-names-v2-7"[:13] + "…" + f"{LONG}-7"[-12:]
    assert len(short_name(LONG, 14)) == 14


@pytest.mark.parametrize("n_tiers", [2, 3, 10])
def test_long_names_leave_the_chart_its_room_and_the_data_their_whole_names(n_tiers: int) -> None:
    names = tuple(f"{LONG}-{i}" for i in range(n_tiers))
    found = curve(n_tiers)
    panel = reliability(np.linspace(0.1, 0.9, 50), np.tile([0.0, 1.0], 25))
    pictures = (
        cost_quality(found, tiers=names, title="t", operating=(2e-4, 0.7), target=0.97, note="in service"),
        tier_mix(found, columns=names, title="t", operating=0.97),
        reliability_diagram(dict.fromkeys(names, panel), title="t", ece=dict.fromkeys(names, Figure(0.1))),
    )
    for picture in pictures:
        assert LONG not in re.sub(r"<desc>.*?</desc>", "", picture.svg, flags=re.DOTALL)
        assert LONG in picture.data
    frame = re.search(r'<g id="cost_quality-patch_2">\s*<path d="M ([\d.]+) [\d.]+ *\n?L ([\d.]+)', pictures[0].svg)
    assert frame is not None
    assert float(frame[2]) - float(frame[1]) > 320  # of 533 points


@pytest.mark.parametrize("quality", [(0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_a_ladder_of_which_one_tier_none_or_all_are_adequate_can_be_drawn(quality: tuple[float, ...]) -> None:
    found = curve(3, np.array(quality))
    assert cost_quality(found, tiers=("s", "m", "l"), title="t", operating=(1e-4, 0.0), target=1.0, note="x").png
    assert all(sum(float(row[name]) for name in "sml") == pytest.approx(1.0) for row in lines(_mix(found, None)))


def test_tiers_that_cost_nothing_can_be_drawn() -> None:
    found = curve(3, price=0.0)
    assert cost_quality(found, tiers=("s", "m", "l"), title="t", operating=(0.0, 0.5), target=0.97, note="x").png
    assert _mix(found, 0.97).png


def _mix(found: Curve, operating: float | None) -> Picture:
    return tier_mix(found, columns=("s", "m", "l"), title="t", operating=operating)


def test_the_mix_is_that_of_the_quality_kept_and_reaches_as_far_as_what_is_in_service() -> None:
    found = curve(3)
    best = found.tier_quality[found.best]
    for row in lines(_mix(found, None))[::40]:
        point = found.cheapest_reaching(float(row["quality_kept"]) * best - 1e-6)
        assert point is not None
        assert [float(row[name]) for name in "sml"] == pytest.approx(found.share[point], abs=1e-5)
    peak = float(found.quality.max() / best)
    assert float(lines(_mix(found, peak))[-1]["quality_kept"]) == pytest.approx(max(peak, 1.0), abs=1e-4)
    assert f"operating point: {100 * peak:.1f}" in _mix(found, peak).svg


def test_as_many_curves_as_there_are_learners_differ_without_their_colours() -> None:
    others = {f"learner {i}": curve(3) for i in range(9)}
    svg = cost_quality(curve(3), tiers=("s", "m", "l"), title="t", baselines=others).svg
    drawn = re.findall(r'clip-path="url[^"]*" style="([^"]*)"', svg)
    looks = {
        tuple(sorted(re.findall(r"stroke(?:-dasharray)?: [^;]+", style))) for style in drawn if "fill: none" in style
    }
    assert len(looks) >= 10
    assert all(f">{name}<" in svg for name in others)


def test_scores_are_counted_once_and_of_no_request_as_none() -> None:
    picture = score_histogram([-0.1, 0.2, 0.4], title="t", label="predicted adequacy of l less that of s")
    assert sum(int(row["requests"]) for row in lines(picture)) == 3
    assert "predicted adequacy of l less that of s" in picture.svg
    assert picture.alt == "Histogram of 3 scores, 66.7% of them above zero."
    assert score_histogram([], title="t", label="l").alt == "Histogram of 0 scores, 0.0% of them above zero."
