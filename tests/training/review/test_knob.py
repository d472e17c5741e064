"""The quality knob of a bundle on a log, and its certificate as tables."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_ml.errors import DataError
from router_ml_training.assessment import assess
from router_ml_training.review.home import Sample, open_home, read_sample
from router_ml_training.review.knob import Knob, certificate_slices, certificate_steps, knob_of


@pytest.fixture(scope="module")
def sample(review_home: Path) -> Sample:
    return read_sample(open_home(review_home, {}))


@pytest.fixture(scope="module")
def knob(review_home: Path, sample: Sample) -> Knob:
    home = open_home(review_home, {})
    return knob_of(home.bundle(), sample.dataset, home.ladder)


def test_a_setting_says_what_an_evaluation_at_that_quality_says(knob: Knob) -> None:
    found = assess(knob.scored, knob.bundle.policy, quality=0.95, n_train=1, rng=np.random.default_rng(0), draws=0)
    setting = knob.at(0.95)
    assert setting.saving == pytest.approx(found.router.saving.value)
    assert setting.loss == pytest.approx(1 - found.router.quality_kept.value)
    assert tuple(setting.share.values()) == pytest.approx(found.router.share)
    assert sum(setting.share.values()) == pytest.approx(1.0)
    assert setting.mix_kept < 1 - setting.loss


def test_less_quality_asked_for_saves_more(knob: Knob) -> None:
    savings = [knob.at(quality).saving for quality in (1.0, 0.97, 0.9)]
    assert savings == sorted(savings)
    assert savings[0] < savings[-1]
    assert knob.at(0.9).price > knob.at(1.0).price


def test_the_frontier_has_every_tuned_point_with_its_effect(knob: Knob) -> None:
    table = knob.frontier()
    assert table["quality"].to_list() == [point.quality for point in knob.bundle.policy.frontier]
    assert table["saving"][0] == pytest.approx(knob.at(table["quality"][0]).saving)


def test_slices_and_pictures_follow_the_setting(knob: Knob) -> None:
    slices = knob.slices(0.95)
    assert (slices[0].name, slices[0].saving.value) == ("all requests", pytest.approx(knob.at(0.95).saving))
    assert "asked for 95 %" in knob.curve_picture(0.95).svg
    assert "asked for 90" in knob.slice_picture(0.9).svg


def test_what_the_price_means_is_said_in_its_own_unit(knob: Knob) -> None:
    setting = knob.at(0.95)
    assert setting.worth == f"A dollar is worth {setting.price:.4g} of quality here."
    assert replace(setting, unit="typical").worth == setting.worth
    dearer = replace(knob, scored=replace(knob.scored, price_scale=0.5))
    assert dearer.at(0.95).price == 0.5 * setting.price
    assert replace(setting, unit="relative").worth.startswith("What the dearest tier costs for a request is worth ")


def test_the_point_lies_on_the_curve_of_what_the_policy_does(knob: Knob) -> None:
    drawn = list(csv.DictReader(io.StringIO(knob.curve_picture(0.95).data)))
    (point,) = [row for row in drawn if row["series"] == "operating point"]
    x, y = (float(point[name]) for name in ("usd_per_1000_requests", "quality"))
    curve = [row for row in drawn if row["series"].startswith("router")]
    near = min(abs(float(row["usd_per_1000_requests"]) - x) + abs(float(row["quality"]) - y) for row in curve)
    assert near < 0.01 * x


def test_the_note_says_whose_word_the_outcomes_are(knob: Knob, sample: Sample, review_home: Path) -> None:
    known, n = int(sample.dataset.complete.sum()), len(sample.dataset)
    assert knob.note.startswith(f"{known:,} of {n:,} requests: those with a known outcome of every tier. ")
    assert "no later than the newest that router-2026-01-02.1 has learned from" in knob.note
    home, drawn = open_home(review_home, {}), np.flatnonzero(~sample.dataset.complete)
    assert "what the bundle thinks" in knob_of(home.bundle(), sample.dataset.rows(drawn), home.ladder).note


def test_a_log_of_other_tiers_is_refused(knob: Knob, sample: Sample, review_home: Path) -> None:
    home = open_home(review_home, {})
    with pytest.raises(DataError, match="routes between small, large"):
        knob_of(home.bundle(), replace(sample.dataset, tiers=("a", "b")), home.ladder)


def test_a_certificate_is_shown_as_its_walk_and_its_slices() -> None:
    certificate = {
        "steps": [{"quality": 1.0, "loss": 0.0, "saving": 0.0, "certified": True, "p_value": None, "e_value": None}],
        "slices": [{"name": "code", "n_rows": 7, "n_units": 7, "loss": 0.1, "saving": 0.2, "status": "too few"}],
    }
    assert certificate_steps(certificate).rows() == [(1.0, 0.0, 0.0, True, None, None)]
    assert certificate_slices(certificate).rows() == [("code", 7, 0.1, 0.2, "too few")]
    for none in (None, {"reason": "too little"}):
        assert len(certificate_steps(none)) == len(certificate_slices(none)) == 0
