"""Two versions on the same requests: figures, differences, and every case in which they disagree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_ml_training.evaluation.metrics import Figure
from router_ml_training.review.challenger import Duel, duel, figure_text, gate_table, shelf_table, unseen
from router_ml_training.review.home import Home, Sample, open_home, read_sample

LENGTH, LINEAR = "router-2026-01-01.1", "router-2026-01-02.1"


@pytest.fixture(scope="module")
def home(review_home: Path) -> Home:
    return open_home(review_home, {})


@pytest.fixture(scope="module")
def sample(home: Home) -> Sample:
    return read_sample(home)


@pytest.fixture(scope="module")
def found(home: Home, sample: Sample) -> Duel:
    both = home.bundle(LENGTH), home.bundle(LINEAR)
    return duel(sample, *both, home.ladder, quality=0.97, rng=np.random.default_rng(0))


def test_only_what_is_new_to_both_is_compared(home: Home, sample: Sample, found: Duel) -> None:
    rows, notes = unseen(sample, (home.bundle(LENGTH), home.bundle(LINEAR)))
    last = home.bundle(LENGTH).manifest.trained_on.last_ts
    assert last is not None
    assert (sample.dataset.ts[rows] > last.timestamp()).all()
    assert 390 <= len(rows) <= 400
    assert notes == (f"{len(rows)} requests later than anything that either has learned from.",)
    assert found.n_rows == int(sample.dataset.complete[rows].sum()) < len(rows)
    told = f"The figures are of the {found.n_rows} of them whose outcome is known for every tier."
    assert found.notes == (*notes, told)


def test_where_too_little_is_new_everything_is_compared_and_the_note_says_so(home: Home, sample: Sample) -> None:
    past = Sample(sample.interactions[:700], sample.dataset.rows(np.arange(700)), 700)
    rows, notes = unseen(past, (home.bundle(LENGTH),))
    assert len(rows) == 700
    assert "flatter" in notes[0]


def test_every_figure_stands_beside_the_other_sides(found: Duel) -> None:
    table = {row["figure"]: row for row in found.figures.to_dicts()}
    for side, key in ((found.champion, "champion"), (found.challenger, "challenger")):
        saving = side.assessment.router.saving.value
        assert table["saving"][key].startswith(f"{100 * saving:.1f} % (")
    assert {"quality_kept", "apgr", "cs_97", "ece, small", "brier, large"} <= set(table)


def test_differences_are_paired_on_the_same_requests(found: Duel) -> None:
    quality, usd = found.difference.to_dicts()
    worth = [side.assessment.router.quality for side in (found.champion, found.challenger)]
    spent = [side.assessment.router.cost_per_1k_usd for side in (found.champion, found.challenger)]
    assert quality["value"] == pytest.approx(worth[1] - worth[0])
    assert usd["value"] == pytest.approx(spent[1] - spent[0])
    assert usd["low"] < usd["value"] < usd["high"]


def test_disagreements_add_up_to_the_difference_and_show_their_prompts(found: Duel, sample: Sample) -> None:
    cases = found.disagreements
    assert 0 < len(cases) < found.n_rows
    assert (cases["champion"] != cases["challenger"]).all()
    assert cases["quality won"].sum() / found.n_rows == pytest.approx(found.difference["value"][0], abs=1e-9)
    texts = {
        " ".join(str(message["content"]).split()) for item in sample.interactions for message in item.request.messages
    }
    assert any(text.startswith(str(cases["prompt"][0]).rstrip("…")) for text in texts)
    assert cases["worth"].to_list() == sorted(cases["worth"].to_list())
    assert (found.worst(3)["worth"] <= 0).all()
    assert found.best(3)["worth"].to_list() == sorted(cases["worth"].to_list(), reverse=True)[: len(found.best(3))]


def test_both_sides_stand_on_the_same_estimates_where_outcomes_are_unknown(home: Home, sample: Sample) -> None:
    drawn = np.flatnonzero(~sample.dataset.complete)
    partial = Sample(tuple(sample.interactions[i] for i in drawn), sample.dataset.rows(drawn), len(drawn))
    both = home.bundle(LENGTH), home.bundle(LINEAR)
    found = duel(partial, *both, home.ladder, quality=0.97, rng=np.random.default_rng(0))
    assert any(f"what {LENGTH} thinks of it stands in" in note for note in found.notes)
    sides = (found.champion, found.challenger)
    assert found.difference["value"][0] == pytest.approx(
        sides[1].assessment.router.quality - sides[0].assessment.router.quality
    )
    assert len({side.assessment.outcomes.quality.tobytes() for side in sides}) == 1


def test_a_bundle_agrees_with_itself(home: Home, sample: Sample) -> None:
    same = duel(sample, home.bundle(), home.bundle(), home.ladder, quality=0.97, rng=np.random.default_rng(0))
    assert len(same.disagreements) == len(same.worst()) == len(same.best()) == 0
    assert set(same.difference["says"]) == {"no difference that can be told from noise"}


def test_the_shelf_is_listed_with_roles_and_a_damaged_version_with_its_problem(home: Home, tmp_path: Path) -> None:
    import shutil

    table = shelf_table(home.shelf)
    assert table["version"].to_list() == [LINEAR, LENGTH]
    assert table["role"].to_list() == ["champion", ""]
    assert all(0 < value <= 1 for value in table["cs_97"])
    models = shutil.copytree(home.shelf.directory, tmp_path / "models")
    (models / LENGTH / "manifest.json").write_text("{")
    damaged = shelf_table(replace(home.shelf, directory=models)).filter(version=LENGTH)
    assert damaged["problem"][0].startswith("its manifest cannot be read")


def test_gates_are_shown_as_passed_failed_or_warning() -> None:
    lines = (
        {"name": "saving", "passed": True, "detail": "0.8 saved", "value": 0.8, "limit": 0.7, "required": True},
        {"name": "slices", "passed": False, "detail": "code", "value": None, "limit": None, "required": True},
        {"name": "drift", "passed": False, "detail": "words", "value": 0.3, "limit": 0.2, "required": False},
    )
    assert gate_table(lines)["result"].to_list() == ["passed", "failed", "warns only"]
    assert len(gate_table(())) == 0


def test_a_figure_is_told_with_its_interval_or_its_reason() -> None:
    assert figure_text(Figure(0.5, 0.4, None), percent=True) == "50.0 % (40.0 to ?)"
    assert figure_text(Figure(0.5), percent=False) == "0.5000"
    assert figure_text(Figure(None, reason="no gap"), percent=True) == "undefined: no gap"
    assert figure_text(None, percent=True) == "-"
