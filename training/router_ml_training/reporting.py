"""An assessment in the form a reader meets it: the data of the HTML page and of the terminal's table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from router_ml.bundle import Bundle
from router_ml.shelf import Shelf
from router_ml_training.assessment import Assessment
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bootstrap import curve_figures
from router_ml_training.evaluation.canvas import Picture, short_name
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.compare import Choice
from router_ml_training.evaluation.curves import price_sweep
from router_ml_training.evaluation.figures import cost_quality, reliability_diagram, score_histogram, tier_mix
from router_ml_training.evaluation.figures_review import (
    Importance,
    drift_chart,
    feature_importance,
    slice_table,
    verifier_confusion,
)
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import DataFacts, ModelFacts, ReportData
from router_ml_training.gates import GateLine

__all__ = ["data_facts", "few_rows_note", "gate_lines", "learned_from", "report_data"]

# Prices found on fewer rows miss the quality asked for by several points.
_FEW_ROWS = 1000


def report_data(
    assessment: Assessment,
    *,
    title: str,
    created: datetime,
    data: DataFacts,
    model: ModelFacts,
    choice: Choice | None,
    certification: Certification | None = None,
    notes: tuple[str, ...] = (),
    cautions: tuple[str, ...] = (),
    importance: Sequence[Importance] = (),
    gates: Sequence[GateLine] = (),
    drift: Sequence[tuple[str, float, float]] = (),
    draw: bool = True,
) -> ReportData:
    """Gather everything a report says, and draw its pictures unless it is only told.

    Args:
        assessment: What the router is worth on rows it has never seen.
        title: Heading of the page.
        created: When it is made.
        data: What it was measured on.
        model: What was measured.
        choice: How the learner was chosen; None when nothing was compared.
        certification: What is proven; None when nothing was to be.
        notes: Further sentences for the reader.
        cautions: What is to be known before any figure is believed.
        importance: What each feature is worth; none leaves its picture out.
        gates: The gates before promotion; none leaves their table out.
        drift: Name, shift and allowed shift of each feature; none leaves the picture out.
        draw: Whether to draw pictures.
    """
    pictures: tuple[Picture, ...] = ()
    if draw:
        pictures = (
            *_pictures(assessment, simulated=data.simulated),
            *_review_pictures(assessment, importance, drift, simulated=data.simulated),
        )
    return ReportData(
        title=title,
        created=created,
        tiers=assessment.tiers,
        columns=assessment.tiers,
        best_tier=assessment.tiers[assessment.outcomes.best_tier],
        quality=assessment.quality,
        router=assessment.router,
        others=assessment.strategies[1:],
        figures=assessment.figures,
        oracle=_oracle(assessment),
        vacuous=assessment.vacuous,
        choice=choice,
        calibration=assessment.calibration,
        pictures=pictures,
        data=data,
        model=model,
        slices=assessment.slices,
        gates=tuple(gates),
        notes=(*notes, *_escalation_note(assessment)),
        cautions=(*cautions, *_estimated_caution(assessment)),
        estimated=assessment.estimated,
        certification=certification,
    )


def data_facts(dataset: Dataset, assessment: Assessment, description: str) -> DataFacts:
    """Return what a reader should know about the data."""
    times = dataset.ts if dataset.dated else np.zeros(0)
    return DataFacts(
        description=description,
        digest=dataset.digest,
        n_train=assessment.n_train,
        n_test=assessment.n_test,
        first=datetime.fromtimestamp(float(times.min()), UTC) if times.size else None,
        last=datetime.fromtimestamp(float(times.max()), UTC) if times.size else None,
        simulated=dataset.simulated,
    )


def gate_lines(shelf: Shelf, version: str) -> tuple[GateLine, ...]:
    """Return the gates that a version went through before promotion, as the shelf keeps them; none where none ran."""
    return tuple(GateLine(**line) for line in shelf.gates(version))


def learned_from(dataset: Dataset, bundle: Bundle) -> tuple[str, ...]:
    """Return a warning where a bundle may have learned from what it is measured on; nothing where it cannot have.

    Args:
        dataset: What it is measured on.
        bundle: What is measured.
    """
    trained = bundle.manifest.trained_on
    if dataset.digest == trained.digest:
        return (
            f"This is the log that {bundle.version} was trained on: the figures flatter it. Measure it on a later log.",
        )
    dated = dataset.dated and trained.last_ts is not None
    early = int((dataset.ts <= trained.last_ts.timestamp()).sum()) if dated and trained.last_ts else 0
    if not early:
        return ()
    return (
        f"{early:,} of these {len(dataset):,} requests are no later than the newest that {bundle.version} has learned "
        "from: if it has seen them, the figures flatter it. Measure it on later requests.",
    )


def few_rows_note(n_solved: int) -> tuple[str, ...]:
    """Return a warning where the frontier's prices rest on few requests with every tier's outcome known."""
    if n_solved >= _FEW_ROWS:
        return ()
    return (
        f"The prices of the frontier rest on {n_solved:,} requests with every tier's outcome known: below "
        f"{_FEW_ROWS:,} the quality kept can miss what was asked for by several points, so audit more requests.",
    )


def _escalation_note(assessment: Assessment) -> tuple[str, ...]:
    if assessment.estimated or not assessment.router.escalation_rate:
        return ()
    return (
        "The operating point and the curve are those of plans: where the verifier expected more of a dearer tier, its "
        "answer replaced the first one, and both are paid for. APGR and CPT are of the scores before the call.",
    )


def _oracle(assessment: Assessment) -> dict[str, Figure]:
    outcomes, rng = assessment.outcomes, np.random.default_rng(0)
    k = outcomes.n_tiers
    swept = price_sweep(outcomes.quality[:, :k], outcomes.cost[:, :k], rng=rng, floor=-np.inf)
    return curve_figures(swept, outcomes, rng=rng, draws=0)


def _pictures(assessment: Assessment, *, simulated: bool) -> tuple[Picture, ...]:
    router = assessment.router
    errors = {name: figures["ece"] for name, figures in assessment.calibration.items()}
    pictures = [
        cost_quality(
            assessment.curve,
            tiers=assessment.tiers,
            title="What the router costs and keeps",
            baselines={name: assessment.baselines[name] for name in ("prompt_length", "oracle")},
            operating=(router.cost_usd, router.quality),
            target=assessment.quality,
            note=f"asked for {100 * assessment.quality:.4g} %",
            simulated=simulated,
        )
    ]
    if assessment.reliability:
        pictures.append(
            reliability_diagram(
                assessment.reliability,
                title="Predicted against observed adequacy",
                ece=errors,
                simulated=simulated,
            )
        )
    pictures.append(
        tier_mix(
            assessment.curve,
            columns=assessment.tiers,
            title="Who answers, as the quality kept rises",
            operating=router.quality_kept.value,
            simulated=simulated,
        )
    )
    best, cheapest = short_name(assessment.tiers[assessment.outcomes.best_tier]), short_name(assessment.tiers[0])
    pictures.append(
        score_histogram(
            assessment.score,
            title=f"How much more adequate {best} is expected to be",
            label=f"predicted adequacy of {best} less that of {cheapest}",
            simulated=simulated,
        )
    )
    return tuple(pictures)


def _review_pictures(
    assessment: Assessment,
    importance: Sequence[Importance],
    drift: Sequence[tuple[str, float, float]],
    *,
    simulated: bool,
) -> list[Picture]:
    pictures = []
    if importance:
        title = "What the router looks at, shuffled one by one"
        pictures.append(feature_importance(importance, title=title, simulated=simulated))
    if len(assessment.slices) > 1:
        title = "What each part of the traffic keeps and saves"
        pictures.append(slice_table(assessment.slices, quality=assessment.quality, title=title, simulated=simulated))
    judged = assessment.judgements
    if judged is not None:
        title = "What the verifier lets through"
        pictures.append(verifier_confusion(judged.tiers, rule=judged.rule, title=title, simulated=simulated))
    if drift:
        title = "What has shifted since training"
        pictures.append(drift_chart(drift, title=title, simulated=simulated))
    return pictures


def _estimated_caution(assessment: Assessment) -> tuple[str, ...]:
    if not assessment.estimated:
        return ()
    return (
        f"Only {assessment.n_known} test requests have a known outcome for every tier, so the outcomes of untried "
        "tiers are the model's own estimates here. Audit a random share of requests to replace them by facts.",
    )
