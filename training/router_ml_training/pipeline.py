"""Retraining as one path: learn, assess, certify, track, write the bundle, compare with the champion, promote.

Each step takes values and returns values; what touches the disk comes last and is atomic, so that an interrupted run
leaves either nothing or a whole bundle that is not yet in service.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np

from router_ml.bundle import MANIFEST, Bundle, ManifestDraft, Metric, TrainedOn, load_bundle, write_bundle
from router_ml.errors import BundleMismatch
from router_ml.ladder import Ladder
from router_ml.shelf import Shelf
from router_ml_training.assessment import Assessment, assess
from router_ml_training.certification import Terms, certify_policy, uncertified
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.gate import GateReport, compare
from router_ml_training.learning import Progress, Trained, learn
from router_ml_training.settings import TrainingSettings

__all__ = ["LIBRARIES", "Run", "Tracker", "metrics_of", "next_version", "promote_if_not_worse", "train_bundle"]

LIBRARIES = ("router-ml", "numpy", "scikit-learn", "lightgbm", "onnx", "onnxruntime")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run whose bundle is on the shelf, not yet in service."""

    version: str
    bundle: Bundle
    trained: Trained
    assessment: Assessment
    certification: Certification
    dataset: Dataset
    created: datetime
    description: str
    mlflow_run_id: str | None


# Records a run before its bundle is written, and returns the id the manifest should name (None: not recorded).
Tracker: TypeAlias = Callable[[Trained, Assessment, Certification, Dataset, str], str | None]


def train_bundle(
    dataset: Dataset,
    ladder: Ladder,
    settings: TrainingSettings,
    shelf: Shelf,
    *,
    quality: float,
    now: datetime,
    description: str,
    git_commit: str | None = None,
    track: Tracker = lambda *_: None,
    progress: Progress = lambda _: None,
) -> Run:
    """Learn from a dataset and put the bundle on the shelf.

    Args:
        dataset: Everything that is known.
        ladder: Tiers and prices.
        settings: `[training]`.
        shelf: Where the bundle goes.
        quality: Share of the best tier's quality that the report's operating point keeps.
        now: Time of the run; names the version.
        description: One sentence on what the data are.
        git_commit: Commit of the project that holds the configuration.
        track: Records the run, in MLflow say.
        progress: Told what is being done.

    Raises:
        DataError: When there is too little to learn from.
        ParityError: When the graph is not the trained model.
        BundleError: When the bundle cannot be written.
    """
    trained = learn(dataset, ladder, settings, progress=progress)
    progress("measuring on held-out rows")
    rng = np.random.default_rng(settings.seed + 1)
    assessment = assess(trained.test, trained.policy, quality=quality, n_train=trained.n_fitted, rng=rng)
    progress("certifying on rows that nothing has touched")
    certification = _certify(trained, dataset, settings, now)
    version = next_version(shelf, now)
    progress("recording the run")
    run_id = track(trained, assessment, certification, dataset, version)
    draft = ManifestDraft(
        version=version,
        created=now,
        git_commit=git_commit,
        trained_on=_trained_on(dataset, description),
        learner=trained.learner,
        metrics=metrics_of(assessment),
        certificate=certification.to_dict(),
        mlflow_run_id=run_id,
        libraries={name: importlib.metadata.version(name) for name in LIBRARIES},
        simulated=dataset.simulated,
    )
    path = write_bundle(
        shelf.directory,
        manifest=draft,
        policy=trained.policy,
        model=trained.graph,
        verifier=None if trained.judge is None else trained.judge.graph,
    )
    return Run(version, load_bundle(path), trained, assessment, certification, dataset, now, description, run_id)


def _certify(trained: Trained, dataset: Dataset, settings: TrainingSettings, now: datetime) -> Certification:
    terms = Terms(settings.certify_loss, settings.certify_confidence, settings.certify_slice_loss)
    if trained.certify is None:
        return uncertified(dataset, trained.policy, terms)
    rng = np.random.default_rng(settings.seed + 2)
    return certify_policy(trained.certify, trained.policy, date=now, rng=rng, terms=terms)


def promote_if_not_worse(run: Run, shelf: Shelf, *, now: datetime) -> GateReport:
    """Compare a run's bundle with the champion on the run's held-out rows and promote it if it passes.

    Args:
        run: The challenger.
        shelf: Holds both.
        now: Time of the switch.

    Returns:
        The gate's report; the champion stays in service when it did not pass.
    """
    report = _gate(run, shelf)
    _log.info("gate", extra={"challenger": run.version, "passed": report.passed, "reason": report.reason})
    if report.passed:
        shelf.promote(run.version, reason=report.reason, now=now)
    return report


def _gate(run: Run, shelf: Shelf) -> GateReport:
    name = shelf.champion()
    path = shelf.champion_path()  # the default bundle before the first promotion
    try:
        champion = load_bundle(path) if (path / MANIFEST).exists() else None
    except BundleMismatch as error:
        # Made by another release: the service of this one cannot serve it either.
        return GateReport(True, f"the champion cannot be served any more: {error}", name, 0)
    trained = run.trained
    return compare(trained.test, trained.policy, champion, trained.ladder, quality=run.assessment.quality)


def next_version(shelf: Shelf, now: datetime) -> str:
    """Return the day's next free version, such as `router-2026-11-20.3`."""
    stem = f"router-{now.astimezone(UTC):%Y-%m-%d}."
    taken = [entry.version.removeprefix(stem) for entry in shelf.versions() if entry.version.startswith(stem)]
    return f"{stem}{max((int(number) for number in taken if number.isdigit()), default=0) + 1}"


def _trained_on(dataset: Dataset, description: str) -> TrainedOn:
    first, last = (datetime.fromtimestamp(float(edge), UTC) for edge in (dataset.ts.min(), dataset.ts.max()))
    return TrainedOn(
        digest=dataset.digest,
        n_interactions=len(dataset),
        first_ts=first if dataset.dated else None,
        last_ts=last if dataset.dated else None,
        description=description,
    )


def metrics_of(assessment: Assessment) -> dict[str, Metric]:
    """Return every defined figure of an assessment, as a manifest holds them."""
    figures = {**assessment.figures}
    for tier, calibration in assessment.calibration.items():
        figures |= {f"{name}_{tier}": figure for name, figure in calibration.items()}
    return {
        name: Metric(value=figure.value, low=figure.low, high=figure.high)
        for name, figure in figures.items()
        if figure.value is not None
    }
