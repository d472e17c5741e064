"""An assessment as a report: pictures, facts and cautions."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from router_ml.shelf import Shelf
from router_ml_training.assessment import assess
from router_ml_training.evaluation.report import ModelFacts, ReportData, headline, render_report, summary_table
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.records import report_of_run
from router_ml_training.reporting import data_facts, few_rows_note, learned_from, report_data
from router_ml_training.settings import TrainingSettings

NOW = datetime(2026, 2, 1, tzinfo=UTC)
SETTINGS = TrainingSettings(learners=("constant", "linear"))


@pytest.fixture(scope="module")
def run(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    shelf = Shelf(tmp_path_factory.mktemp("models"))
    data = world.dataset(500, simulated="audit")
    return train_bundle(data, world.ladder, SETTINGS, shelf, quality=0.97, now=NOW, description="500 made up")


@pytest.fixture(scope="module")
def report(run: Run) -> ReportData:
    return report_of_run(run)


def test_a_run_is_reported_with_its_data_its_model_and_its_choice(run: Run, report: ReportData) -> None:
    assert report.router is run.assessment.router
    assert report.best_tier == "large"
    assert report.choice is run.trained.competition.choice
    assert (report.data.n_train, report.data.n_test, report.data.simulated) == (400, 100, True)
    assert report.data.first == datetime(2026, 1, 1, tzinfo=UTC)
    assert (report.model.learner, report.model.version) == (run.trained.learner, run.version)
    assert len(report.notes) == 1
    assert report.notes[0].startswith("The prices of the frontier rest on 400 requests with every tier's outcome known")
    assert [picture.name for picture in report.pictures] == [
        "cost_quality",
        "reliability",
        "tier_mix",
        "scores",
        "feature_importance",
        "slice_table",
        "drift",
    ]


def test_few_rows_behind_the_frontier_are_told_with_their_number() -> None:
    assert few_rows_note(1000) == ()
    assert "rest on 999 requests" in few_rows_note(999)[0]


def test_what_is_proven_comes_before_what_was_measured(report: ReportData) -> None:
    assert report.certification is not None
    page, lines = render_report(report), summary_table(report).splitlines()
    assert lines[0] == report.certification.verdict
    assert lines[1].startswith("Measured, not proven: ")
    assert "on 100 test requests" in lines[2]
    heading = page[page.index("<h1>") + 4 : page.index("</h1>")]
    assert heading == headline(report) == "Nothing is proven about this router"
    assert page.index("No certificate, so nothing is proven") < page.index("not proven:")
    assert "random mix, same cost" not in page
    bare = replace(report.certification, settled=None, notes=())
    assert "<h2>What is proven</h2>" not in render_report(replace(report, certification=bare))
    assert "The claim takes learning" not in page


def test_the_oracle_of_the_report_is_above_the_router(report: ReportData) -> None:
    assert (report.oracle["cs_97"].value or 0) >= (report.figures["cs_97"].value or 0)
    assert (report.oracle["aiq"].value or 0) >= (report.figures["aiq"].value or 0)


def test_the_page_and_the_table_say_what_there_is_to_say(run: Run, report: ReportData) -> None:
    page, table = render_report(report), summary_table(report)
    assert run.version in page
    assert run.dataset.digest in page
    assert "simulated" in page.lower()
    assert "http://" not in page.replace("http://www.w3.org", "")  # needs nothing from outside
    for name in ("router", "always small", "always large", "oracle"):
        assert name in table


def test_a_log_without_times_or_with_guesses_says_so(world: Any, run: Run) -> None:
    test = run.trained.test
    chain = world.dataset(100, policy="chain")
    guessed = replace(test, dataset=chain)
    found = assess(guessed, run.trained.policy, quality=0.97, n_train=1, rng=np.random.default_rng(0), draws=0)
    undated = replace(chain, dated=False)
    data = report_data(
        found,
        title="t",
        created=NOW,
        data=data_facts(undated, found, "a chain"),
        model=ModelFacts("linear", "v", None),
        choice=None,
    )
    assert (data.data.first, data.data.last) == (None, None)
    assert data.cautions[0].startswith("Only 0 test requests have a known outcome for every tier")


def test_what_a_bundle_may_have_learned_from_flatters_it_and_the_reader_is_told(world: Any, run: Run) -> None:
    (own,) = learned_from(run.dataset, run.bundle)
    assert own.startswith(f"This is the log that {run.version} was trained on")
    later = replace(run.dataset, ts=run.dataset.ts + 1e8, digest="another")
    longer = later.rows(np.arange(400))
    assert learned_from(longer, run.bundle) == ()
    mixed = replace(longer, ts=np.concatenate([run.dataset.ts[:30], longer.ts[30:]]))
    (some,) = learned_from(mixed, run.bundle)
    assert some.startswith("30 of these 400 requests are no later than the newest")
    assert learned_from(replace(mixed, dated=False), run.bundle) == ()
