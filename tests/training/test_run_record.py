"""What MLflow is told of a finished run, without MLflow: figures, data, each learner and why it was kept or not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from router_ml_training.evaluation.compare import Candidate, Choice
from router_ml_training.pipeline import Run
from router_ml_training.records import report_of_run
from router_ml_training.run_record import learner_verdict, run_key, training_record
from router_ml_training.settings import TrainingSettings
from router_ml_training.tracking_record import TrainingRecord

SETTINGS = TrainingSettings(learners=("constant", "linear"), seed=3)


@pytest.fixture(scope="module")
def record(trained_run: Run) -> TrainingRecord:
    return training_record(trained_run, SETTINGS, report_of_run(trained_run), key="a key")


def test_the_run_is_named_after_its_bundle(record: TrainingRecord, trained_run: Run) -> None:
    assert (record.name, record.bundle) == (trained_run.version, trained_run.bundle.path)
    assert (record.key, record.quality) == ("a key", 0.97)


def test_settings_are_params_and_figures_have_intervals(record: TrainingRecord, trained_run: Run) -> None:
    assert record.params["learners"] == "constant,linear"
    assert (record.params["learner"], record.params["split_by"]) == (trained_run.trained.learner, "time")
    assert {"saving", "quality_kept", "brier_small", "certified_saving"} <= set(record.metrics)
    saving = record.metrics["saving"]
    assert saving.low is not None
    assert saving.value is not None
    assert saving.low <= saving.value


def test_the_data_are_known_by_digest_size_and_time(record: TrainingRecord, trained_run: Run) -> None:
    data = record.data
    assert (data.digest, data.n_rows, data.source) == (trained_run.dataset.digest, 400, "400 made up")
    assert data.first == datetime(2026, 1, 1, tzinfo=UTC)
    assert data.last == datetime(2026, 1, 1, 6, 39, tzinfo=UTC)
    assert data.known["small"] == 400 > data.known["large"] > 0


def test_every_learner_has_its_loss_its_calibration_and_a_reason(record: TrainingRecord, trained_run: Run) -> None:
    learners = {one.name: one for one in record.learners}
    assert set(learners) == {"constant", "linear"}
    assert [name for name, one in learners.items() if one.chosen] == [trained_run.trained.learner]
    for one in learners.values():
        assert {"loss", "loss_above_best", "loss_above_best_standard_error", "ece_small", "brier_large"} <= set(
            one.metrics
        )
        assert one.why.endswith(".")
        above = one.metrics["loss_above_best"]
        assert above.low is not None
        assert above.high is not None
        assert above.low <= above.high


def candidate(name: str, excess: float, *, within: bool) -> Candidate:
    return Candidate(name, 0.5 + excess, excess, 0.02, within)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("keywords", "Use 'keywords': because."),
        ("gbdt", "Not kept: it has the lowest held-out loss, but 'keywords' is simpler and within one standard error."),
        (
            "linear",
            "Not kept: within one standard error of the best, 'gbdt', but 'keywords' is simpler or predicts the "
            "differences between tiers better.",
        ),
        ("constant", "Not kept: its held-out loss is 0.3 above that of 'gbdt', with a standard error of 0.02."),
    ],
)
def test_the_reason_is_the_rule_that_was_applied(name: str, said: str) -> None:
    all_of_them = (
        candidate("constant", 0.3, within=False),
        candidate("keywords", 0.01, within=True),
        candidate("linear", 0.005, within=True),
        candidate("gbdt", 0.0, within=True),
    )
    choice = Choice("keywords", "gbdt", False, all_of_them, "Use 'keywords': because.")
    [asked] = [one for one in all_of_them if one.name == name]
    assert learner_verdict(asked, choice) == said


def test_pictures_tables_report_and_description_go_with_it(record: TrainingRecord, trained_run: Run) -> None:
    assert {"cost_quality", "tier_mix"} <= {one.name for one in record.pictures}
    assert all(one.data.count("\n") > 1 for one in record.pictures)
    assert [row["strategy"] for row in record.tables["strategies"]][:2] == ["router", "always small"]
    assert record.tables["slices"][0]["slice"] == "all requests"
    assert (record.report_html or "").startswith("<!doctype html>")
    assert trained_run.trained.competition.choice.verdict in record.description
    assert "400 interactions, 400 made up" in record.description


def test_the_registered_version_says_what_is_proven(record: TrainingRecord, trained_run: Run) -> None:
    assert record.model_tags["certificate"] == trained_run.certification.verdict
    assert record.model_tags["data.digest"] == trained_run.dataset.digest
    assert record.tags["simulated"] == "false"


def test_a_key_tells_runs_apart_that_share_a_version() -> None:
    now, later = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 1, 1, tzinfo=UTC)
    keys = {run_key("v", "d", now), run_key("v", "e", now), run_key("v", "d", later), run_key("w", "d", now)}
    assert len(keys) == 4
    assert run_key("v", "d", now) == run_key("v", "d", now)
