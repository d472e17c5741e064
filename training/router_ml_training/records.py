"""A run as it is remembered: its report for people, its record in MLflow."""

from __future__ import annotations

import importlib.metadata
import logging
from datetime import datetime

from router_ml.errors import RouterError
from router_ml.features import DENSE_NAMES
from router_ml_training.assessment import Assessment
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import ModelFacts, ReportData, render_report
from router_ml_training.learning import Trained
from router_ml_training.pipeline import Run, Tracker
from router_ml_training.reporting import data_facts, few_rows_note, report_data
from router_ml_training.settings import MlflowSettings, TrainingSettings
from router_ml_training.tasks import forms
from router_ml_training.tracking import DataRecord, TrainingRecord, log_training, set_alias

__all__ = ["mlflow_tracker", "name_champion", "report_of_run"]

_log = logging.getLogger(__name__)


def report_of_run(run: Run, *, title: str = "Router training run", draw: bool = True) -> ReportData:
    """Return what the report of a finished run says; its pictures take a while, and the terminal needs none."""
    model = ModelFacts(run.trained.learner, run.version, run.mlflow_run_id, _model_facts(run.trained))
    run_of = (run.trained, run.assessment, run.certification, run.dataset)
    return _report(*run_of, run.created, run.description, model, title, draw=draw)


def mlflow_tracker(settings: MlflowSettings, training: TrainingSettings, now: datetime, description: str) -> Tracker:
    """Return a function that records a run in MLflow.

    When MLflow cannot be reached the run goes on without it: a warning says so, and the manifest names no run.
    """

    def track(
        trained: Trained, assessment: Assessment, certification: Certification, dataset: Dataset, version: str
    ) -> str | None:
        model = ModelFacts(trained.learner, version, None, _model_facts(trained))
        report = _report(trained, assessment, certification, dataset, now, description, model, "Router training run")
        record = TrainingRecord(
            name=version,
            params={**_params(training), "learner": trained.learner, "split_by": trained.split_by},
            metrics={**_metrics(assessment, trained), **certification.figures()},
            data=DataRecord("interactions", dataset.digest, len(dataset), description),
            model=trained.graph,
            tiers=trained.ladder.names,
            n_dense=len(DENSE_NAMES),
            requirements=tuple(f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")),
            pictures=report.pictures,
            report_html=render_report(report),
            tags={
                "verdict": trained.competition.choice.verdict,
                "certificate": certification.verdict,
                "simulated": str(dataset.simulated).lower(),
                "dataset_digest": dataset.digest,
            },
        )
        try:
            return log_training(record, settings=settings)
        except RouterError as error:
            _log.warning("the run is not recorded in MLflow: %s", error)
            return None

    return track


def name_champion(run_id: str | None, settings: MlflowSettings) -> None:
    """Point MLflow's alias `champion` at the run whose bundle was promoted (None: it was not recorded there).

    The shelf has switched already: when MLflow cannot be reached, a warning says so and nothing else happens.
    """
    if run_id is None:
        return
    try:
        set_alias("champion", run_id, settings=settings)
    except RouterError as error:
        _log.warning("MLflow's alias 'champion' stays where it was: %s", error)


def _report(
    trained: Trained,
    assessment: Assessment,
    certification: Certification,
    dataset: Dataset,
    created: datetime,
    description: str,
    model: ModelFacts,
    title: str,
    *,
    draw: bool = True,
) -> ReportData:
    return report_data(
        assessment,
        title=title,
        created=created,
        data=data_facts(dataset, assessment, description),
        model=model,
        choice=trained.competition.choice,
        certification=certification,
        notes=few_rows_note(trained.n_solved),
        draw=draw,
    )


def _model_facts(trained: Trained) -> dict[str, str]:
    heads = ", ".join(f"{tier} {form}" for tier, form in forms(trained.competition.winner).items())
    parity = trained.parity
    return {
        "heads": heads,
        "parity": f"{parity.n_rows:,} rows, largest difference {parity.max_difference:.1e}, no decision flipped",
        "split": f"by {trained.split_by}",
    }


def _params(training: TrainingSettings) -> dict[str, str | int | float | bool]:
    return {
        name: ",".join(value) if isinstance(value, tuple) else value for name, value in training.model_dump().items()
    }


def _metrics(assessment: Assessment, trained: Trained) -> dict[str, Figure]:
    metrics = dict(assessment.figures)
    metrics["quality_kept"] = assessment.router.quality_kept
    metrics["saving"] = assessment.router.saving
    for tier, figures in assessment.calibration.items():
        metrics |= {f"{name}_{tier}": figure for name, figure in figures.items()}
    for candidate in trained.competition.choice.candidates:
        metrics[f"loss_{candidate.name}"] = Figure(candidate.loss)
    return metrics
