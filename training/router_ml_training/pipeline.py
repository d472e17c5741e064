"""Training as one path: learn, assess, certify, write the bundle, track, compare with the champion, promote.

What touches the disk comes last and is atomic, so that an interrupted run leaves either nothing or a whole bundle that
is not yet in service. `retrain` takes the same functions as steps that can be resumed.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import MANIFEST, Bundle, ManifestDraft, Metric, PolicySpec, TrainedOn, load_bundle, write_bundle
from router_ml.errors import BundleMismatch
from router_ml.ladder import Ladder
from router_ml.shelf import DEFAULT, Shelf
from router_ml_training.assessment import Assessment, assess
from router_ml_training.certification import Terms, certify_policy, uncertified
from router_ml_training.dataset import Dataset
from router_ml_training.drift import TRAFFIC_KINDS, drift_between
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.gate import GateReport, compare
from router_ml_training.gates import GateLine
from router_ml_training.learning import Progress, Trained, learn
from router_ml_training.profile import Profile, profile_of
from router_ml_training.scored import Scored
from router_ml_training.settings import TrainingSettings

__all__ = [
    "LIBRARIES",
    "Run",
    "Tracker",
    "certify_run",
    "champion_of",
    "measure_run",
    "metrics_of",
    "next_version",
    "promote_if_not_worse",
    "some",
    "train_bundle",
    "windows",
    "write_run",
]

I64: TypeAlias = NDArray[np.int64]

# Rows that sum up a window of traffic.
_SUMMED_UP = 20_000
LIBRARIES = ("router-ml", "numpy", "scikit-learn", "lightgbm", "onnx", "onnxruntime")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training run whose bundle is written, not yet in service.

    `dataset` is everything that was read, perhaps without its words; `notes` are what the report says besides,
    `gates` what was asked before promotion, `drift` how far the held-out window is from the one learned from (name,
    distance, limit of each line).
    """

    version: str
    bundle: Bundle
    trained: Trained
    assessment: Assessment
    certification: Certification
    dataset: Dataset
    created: datetime
    description: str
    mlflow_run_id: str | None
    notes: tuple[str, ...] = ()
    gates: tuple[GateLine, ...] = ()
    drift: tuple[tuple[str, float, float], ...] = ()


# Told of a run before its bundle is written; returns the id the manifest should name (None: not recorded).
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
        track: Begins the record of the run, in MLflow say.
        progress: Told what is being done.

    Raises:
        DataError: When there is too little to learn from.
        ParityError: When the graph is not the trained model.
        BundleError: When the bundle cannot be written.
    """
    trained = learn(dataset, ladder, settings, progress=progress)
    progress("measuring on held-out rows")
    test = trained.test
    assessment = measure_run(test, trained.policy, settings, quality=quality, n_train=trained.n_fitted)
    before, latest = windows(dataset.rows(some(trained.split.train, settings)), test, settings)
    progress("certifying on rows that nothing has touched")
    certification = certify_run(trained.certify, dataset, trained.policy, settings, now)
    version = next_version(shelf, now)
    progress("recording the run")
    run_id = track(trained, assessment, certification, dataset, version)
    parts = (version, trained, assessment, certification, dataset)
    path = write_run(
        *parts,
        shelf.directory,
        now=now,
        description=description,
        git_commit=git_commit,
        run_id=run_id,
        profile=latest.to_bytes(),
    )
    drift = tuple(drift_between(before, latest, kinds=TRAFFIC_KINDS).to_rows())
    bundle = load_bundle(path)
    run = Run(version, bundle, trained, assessment, certification, dataset, now, description, run_id, drift=drift)
    return run


def some(rows: I64, settings: TrainingSettings) -> I64:
    """Return row numbers, at most 20,000 of them: more sum up a window of traffic no better."""
    if len(rows) <= _SUMMED_UP:
        return rows
    return np.sort(np.random.default_rng(settings.seed).choice(rows, _SUMMED_UP, replace=False))


def windows(earlier: Dataset, test: Scored, settings: TrainingSettings) -> tuple[Profile, Profile]:
    """Sum up the window that was learned from, and the held-out one with what the model expects of it.

    Args:
        earlier: `some` of the rows that were learned from.
        test: The held-out rows, scored.
        settings: Seed.
    """
    later = some(np.arange(len(test.dataset)), settings)
    return profile_of(earlier), profile_of(test.dataset.rows(later), test.adequacy[later])


def measure_run(
    test: Scored, policy: PolicySpec, settings: TrainingSettings, *, quality: float, n_train: int
) -> Assessment:
    """Return what a policy is worth on rows it has never seen.

    Args:
        test: The rows, scored.
        policy: What was learned.
        settings: Seed.
        quality: Share of the best tier's quality that the operating point keeps.
        n_train: Rows it was learned from, for the record.
    """
    return assess(test, policy, quality=quality, n_train=n_train, rng=np.random.default_rng(settings.seed + 1))


def certify_run(
    aside: Scored | None, dataset: Dataset, policy: PolicySpec, settings: TrainingSettings, now: datetime
) -> Certification:
    """Return what is proven about a policy.

    Args:
        aside: The rows that nothing has touched, scored; None where there are none.
        dataset: Everything that was read.
        policy: What was learned.
        settings: What is to be proven; seed.
        now: The certificate's date.
    """
    terms = Terms(settings.certify_loss, settings.certify_confidence, settings.certify_slice_loss)
    if aside is None:
        return uncertified(dataset, policy, terms)
    return certify_policy(aside, policy, date=now, rng=np.random.default_rng(settings.seed + 2), terms=terms)


def write_run(
    version: str,
    trained: Trained,
    assessment: Assessment,
    certification: Certification,
    dataset: Dataset,
    directory: Path,
    *,
    now: datetime,
    description: str,
    git_commit: str | None,
    run_id: str | None,
    profile: bytes | None = None,
) -> Path:
    """Write a run's bundle and return its folder.

    Args:
        version: Its version.
        trained: What was learned.
        assessment: What it is worth.
        certification: What is proven.
        dataset: Everything that was read.
        directory: Where the bundle goes.
        now: Time of the run.
        description: One sentence on what the data are.
        git_commit: Commit of the project that holds the configuration.
        run_id: The MLflow run.
        profile: What the traffic looked like.

    Raises:
        BundleError: When the bundle cannot be written.
    """
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
    return write_bundle(
        directory,
        manifest=draft,
        policy=trained.policy,
        model=trained.graph,
        verifier=None if trained.judge is None else trained.judge.graph,
        profile=profile,
    )


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


def champion_of(shelf: Shelf, version: str | None = None) -> Bundle | GateReport | None:
    """Return the bundle in service; None when there is none; a passed gate where it cannot be compared with.

    Args:
        shelf: Where it is.
        version: Who is taken for the champion, `DEFAULT` for the default bundle; None: who is in service.

    Raises:
        BundleCorrupt: When it is damaged.
    """
    version = version or shelf.champion() or DEFAULT  # the default bundle before the first promotion
    path = shelf.path_in_service(version)
    try:
        return load_bundle(path) if (path / MANIFEST).exists() else None
    except BundleMismatch as error:
        # Made by another release: the service of this one cannot serve it either.
        return GateReport(True, f"the champion cannot be served any more: {error}", version, 0)


def _gate(run: Run, shelf: Shelf) -> GateReport:
    champion = champion_of(shelf)
    if isinstance(champion, GateReport):
        return champion
    trained = run.trained
    return compare(trained.test, trained.policy, champion, trained.ladder, quality=run.assessment.quality)


def next_version(shelf: Shelf, now: datetime) -> str:
    """Return the day's next version, such as `router-2026-11-20.3`, which nothing was called before, on this shelf."""
    stem = f"router-{now.astimezone(UTC):%Y-%m-%d}."
    taken = [version.removeprefix(stem) for version in shelf.names() if version.startswith(stem)]
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
