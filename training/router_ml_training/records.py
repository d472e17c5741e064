"""A run as it is remembered: its report for people, its record in MLflow, at once or when MLflow can be reached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from router_ml.errors import RouterError
from router_ml.shelf import Shelf
from router_ml_training.assessment import Assessment
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.figures_review import Importance
from router_ml_training.evaluation.report import ModelFacts, ReportData
from router_ml_training.gates import GateLine
from router_ml_training.importance import importance_of, model_chances
from router_ml_training.learning import Trained
from router_ml_training.pipeline import Run, Tracker
from router_ml_training.reporting import data_facts, few_rows_note, report_data
from router_ml_training.run_record import run_key, training_record
from router_ml_training.settings import MlflowSettings, TrainingSettings
from router_ml_training.tasks import forms
from router_ml_training.tracking import begin_run, log_gates, log_training
from router_ml_training.tracking_aliases import tell_aliases
from router_ml_training.tracking_outbox import flush_outbox, keep_gates, keep_run, outbox_of

__all__ = ["mlflow_tracker", "record_gates", "record_kept", "record_run", "report_of_run", "tell_kept"]

_log = logging.getLogger(__name__)


def report_of_run(run: Run, *, title: str = "Router training run", draw: bool = True) -> ReportData:
    """Return what the report of a finished run says; its pictures take a while, and the terminal needs none."""
    model = ModelFacts(run.trained.learner, run.version, run.mlflow_run_id, _model_facts(run.trained))
    trained, assessment = run.trained, run.assessment
    importance: tuple[Importance, ...] = ()
    if draw:
        predict, rng = model_chances(trained.competition.winner), np.random.default_rng(0)
        importance = importance_of(trained.test, trained.policy, predict, quality=assessment.quality, rng=rng)
    return report_data(
        assessment,
        title=title,
        created=run.created,
        data=data_facts(run.dataset, assessment, run.description),
        model=model,
        choice=trained.competition.choice,
        certification=run.certification,
        notes=(*few_rows_note(trained.n_solved), *run.notes),
        importance=importance,
        gates=run.gates,
        drift=run.drift,
        draw=draw,
    )


def mlflow_tracker(settings: MlflowSettings, created: datetime) -> Tracker:
    """Return a function that begins a run in MLflow, so that the bundle's manifest can name it.

    When MLflow cannot be reached the training goes on without it: a warning says so, and the manifest names no run.
    """

    def begin(
        _trained: Trained, _assessment: Assessment, _certification: Certification, dataset: Dataset, version: str
    ) -> str | None:
        try:
            return begin_run(version, run_key(version, dataset.digest, created), settings)
        except RouterError as error:
            _log.warning("the run cannot be begun in MLflow: %s", error)
            return None

    return begin


def record_run(
    run: Run,
    training: TrainingSettings,
    settings: MlflowSettings,
    shelf: Shelf,
    *,
    report: ReportData | None = None,
    gates: Sequence[GateLine] = (),
    key: str | None = None,
) -> str | None:
    """Record a finished run in MLflow, after those that wait in the outbox; it waits there when that cannot be done.

    Args:
        run: The run, its bundle written.
        training: `[training]`.
        settings: `[mlflow]`.
        shelf: Where its bundle is, and the outbox.
        report: Its report with pictures, where it is drawn already.
        gates: What the gates said of its bundle, as far as they were asked.
        key: What the run was begun under; None: its `run_key`.

    Returns:
        The id of the MLflow run; None when it waits in the outbox.

    Raises:
        RouterError: When it can neither be recorded nor kept.
    """
    key = key or run_key(run.version, run.dataset.digest, run.created)
    record = training_record(run, training, report or report_of_run(run), key=key)
    outbox = outbox_of(shelf.directory)
    try:
        tell_kept(settings, shelf)
        run_id = log_training(record, settings=settings, run_id=run.mlflow_run_id)
        if gates:
            log_gates(run_id, gates, settings=settings)
    except RouterError as error:
        kept = keep_run(record, outbox)
        if gates:
            keep_gates(run.version, key, gates, outbox)
        _log.warning("the run is not recorded in MLflow: %s. It waits in %s for the next run", error, kept)
        return None
    return run_id


def record_kept(settings: MlflowSettings, shelf: Shelf) -> None:
    """Record what waits in the outbox; a warning says so where MLflow cannot be reached, and it goes on waiting."""
    try:
        tell_kept(settings, shelf)
    except RouterError as error:
        _log.warning("earlier runs are not recorded in MLflow until the next run: %s", error)


def tell_kept(settings: MlflowSettings, shelf: Shelf) -> None:
    """Tell MLflow what waits in a shelf's outbox: runs, gates, and then what the alias `champion` is to point at.

    Raises:
        RouterError: When MLflow cannot be used, or something kept cannot be read; the rest stays for the next time.
    """
    flush_outbox(settings, outbox_of(shelf.directory))
    tell_aliases(shelf, settings)


def record_gates(
    version: str, key: str, run_id: str | None, lines: Sequence[GateLine], settings: MlflowSettings, outbox: Path
) -> None:
    """Record what the gates said of a run's bundle, once the run is recorded; both wait where MLflow is not reached.

    Args:
        version: The bundle's.
        key: The key of its run.
        run_id: Its MLflow run; None: found by the key.
        lines: One per gate.
        settings: `[mlflow]`.
        outbox: Where they wait.

    Raises:
        RouterError: When they can neither be recorded nor kept.
    """
    try:
        if not (outbox / version).exists():
            log_gates(run_id or begin_run(version, key, settings), lines, settings=settings)
            return
    except RouterError as error:
        _log.warning("what the gates said is not recorded in MLflow until the next run: %s", error)
    keep_gates(version, key, lines, outbox)


def _model_facts(trained: Trained) -> dict[str, str]:
    heads = ", ".join(f"{tier} {form}" for tier, form in forms(trained.competition.winner).items())
    parity = trained.parity
    return {
        "heads": heads,
        "parity": f"{parity.n_rows:,} rows, largest difference {parity.max_difference:.1e}, no decision flipped",
        "split": f"by {trained.split_by}",
    }
