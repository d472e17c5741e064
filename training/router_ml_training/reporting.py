"""An assessment in the form a reader meets it: the data of the HTML page and of the terminal's table."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from router_ml_training.assessment import Assessment
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.bootstrap import curve_figures
from router_ml_training.evaluation.canvas import Picture
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.compare import Choice
from router_ml_training.evaluation.curves import price_sweep
from router_ml_training.evaluation.figures import cost_quality, reliability_diagram, score_histogram, tier_mix
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import DataFacts, ModelFacts, ReportData

__all__ = ["data_facts", "few_rows_note", "report_data"]

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
    draw: bool = True,
) -> ReportData:
    """Gather everything a report says, and draw its pictures unless it is only told."""
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
        pictures=_pictures(assessment, simulated=data.simulated) if draw else (),
        data=data,
        model=model,
        notes=(*notes, *_cautions(assessment)),
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


def few_rows_note(n_solved: int) -> tuple[str, ...]:
    """Return a warning where the frontier's prices rest on few requests with every tier's outcome known."""
    if n_solved >= _FEW_ROWS:
        return ()
    return (
        f"The prices of the frontier rest on {n_solved:,} requests with every tier's outcome known: below "
        f"{_FEW_ROWS:,} the quality kept can miss what was asked for by several points, so audit more requests.",
    )


def _escalation_note(assessment: Assessment) -> tuple[str, ...]:
    if not assessment.router.escalation_rate:
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
    best = assessment.tiers[assessment.outcomes.best_tier]
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
            note=f"in service: asked for {100 * assessment.quality:.4g} %",
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
            title="Who answers, as the quality asked for rises",
            operating=assessment.quality,
            simulated=simulated,
        )
    )
    pictures.append(
        score_histogram(assessment.score, title=f"How much more adequate {best} is expected to be", simulated=simulated)
    )
    return tuple(pictures)


def _cautions(assessment: Assessment) -> tuple[str, ...]:
    if not assessment.estimated:
        return _escalation_note(assessment)
    return (
        f"Only {assessment.n_known} test requests have a known outcome for every tier, so the outcomes of untried "
        "tiers are the model's own estimates here. Audit a random share of requests to replace them by facts.",
    )
