"""A competition of learners for a reader."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml_training.review.competition import Match, competition_table, play
from router_ml_training.review.home import open_home, read_sample


@pytest.fixture(scope="module")
def match(review_home: Path) -> Match:
    home = open_home(review_home, {})
    told: list[str] = []
    now = datetime(2026, 2, 1, tzinfo=UTC)
    sample = read_sample(home)
    found = play(sample.dataset, home.ladder, home.training, quality=0.97, now=now, progress=told.append)
    assert "fitting 'linear'" in told
    return found


def test_the_table_is_that_of_the_choice_simplest_first(match: Match) -> None:
    table = competition_table(match.trained)
    assert table["learner"].to_list() == ["constant", "length", "linear"]
    assert table.filter(table["kept"])["learner"].to_list() == [match.trained.learner] == ["linear"]
    assert table["above the best"].min() == 0.0


def test_every_candidate_has_a_curve_on_the_same_test_rows(match: Match) -> None:
    curves = {row["learner"]: row for row in match.curve_table().to_dicts()}
    assert set(curves) == {"constant", "length", "linear"}
    assert curves["linear"]["kept"]
    assert curves["linear"]["apgr"] > max(curves["length"]["apgr"], curves["constant"]["apgr"])
    picture = match.curve_picture()
    assert {line.partition(",")[0] for line in picture.data.splitlines()} >= {"linear", "length", "constant"}


def test_the_winners_pictures_can_be_had_by_name(match: Match) -> None:
    for name in ("reliability", "feature_importance", "slice_table"):
        picture = match.picture(name)
        assert picture is not None
        assert picture.name == name
    assert match.picture("drift") is None


def test_nothing_is_written(match: Match, review_home: Path) -> None:
    assert match.report.model.version == "not written"
    assert len(open_home(review_home, {}).versions()) == 2
