"""What MLflow is told of a finished run: settings, figures, data, learners that competed, tables, the report."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np

from router_ml_training.assessment import Assessment
from router_ml_training.candidates import Competition
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.calibration_metrics import calibration_figures
from router_ml_training.evaluation.compare import Candidate, Choice
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import ReportData, render_report
from router_ml_training.pipeline import Run
from router_ml_training.settings import TrainingSettings
from router_ml_training.tracking_record import DataRecord, LearnerRecord, Table, TrainingRecord

__all__ = ["learner_verdict", "run_key", "training_record"]


def run_key(version: str, digest: str, created: datetime) -> str:
    """Return what names a run for good in MLflow: two machines may well make the same version on one day."""
    return f"{version} {digest} {created.isoformat()}"


def learner_verdict(candidate: Candidate, choice: Choice) -> str:
    """Return why a learner that competed was kept or not, in one sentence."""
    if candidate.name == choice.name:
        return choice.verdict
    if candidate.name == choice.best:
        return (
            f"Not kept: it has the lowest held-out loss, but '{choice.name}' is simpler and within "
            f"{'two standard errors' if choice.keep_constant else 'one standard error'}."
        )
    if candidate.within:
        return (
            f"Not kept: within one standard error of the best, '{choice.best}', but '{choice.name}' is simpler or "
            "predicts the differences between tiers better."
        )
    return (
        f"Not kept: its held-out loss is {candidate.excess:.2g} above that of '{choice.best}', with a standard error "
        f"of {candidate.standard_error:.2g}."
    )


def training_record(run: Run, training: TrainingSettings, report: ReportData, *, key: str) -> TrainingRecord:
    """Return what MLflow is told of a finished run.

    Args:
        run: The run, its bundle written.
        training: `[training]`.
        report: Its report, with pictures.
        key: Names the run for good, as `run_key` does.
    """
    trained, certification, dataset = run.trained, run.certification, run.dataset
    choice = trained.competition.choice
    facts = {"certificate": certification.verdict, "simulated": str(dataset.simulated).lower()}
    beyond = str(certification.beyond_constant).lower()
    return TrainingRecord(
        name=run.version,
        key=key,
        bundle=run.bundle.path,
        quality=run.assessment.quality,
        params={**_params(training), "learner": trained.learner, "split_by": trained.split_by},
        metrics={**_metrics(run.assessment), **certification.figures()},
        data=_data_record(dataset, run.description),
        learners=tuple(_learner_record(one, trained.competition) for one in choice.candidates),
        pictures=report.pictures,
        tables=_tables(run),
        report_html=render_report(report),
        description=_description(run),
        tags={
            **facts,
            "verdict": choice.verdict,
            "certified": beyond,
            "tiers": ",".join(dataset.tiers),
        },
        model_tags={**facts, "certified": beyond, "data.digest": dataset.digest, "learner": trained.learner},
    )


def _params(training: TrainingSettings) -> dict[str, str | int | float | bool]:
    return {
        name: ",".join(value) if isinstance(value, tuple) else value for name, value in training.model_dump().items()
    }


def _metrics(assessment: Assessment) -> dict[str, Figure]:
    metrics = dict(assessment.figures)
    metrics["quality_kept"] = assessment.router.quality_kept
    metrics["saving"] = assessment.router.saving
    for tier, figures in assessment.calibration.items():
        metrics |= {f"{name}_{tier}": figure for name, figure in figures.items()}
    return metrics


def _data_record(dataset: Dataset, description: str) -> DataRecord:
    times = (dataset.ts.min(), dataset.ts.max()) if dataset.dated else (None, None)
    first, last = (None if time is None else datetime.fromtimestamp(float(time), UTC) for time in times)
    counts = (~np.isnan(dataset.quality)).sum(axis=0)
    known = {tier: int(count) for tier, count in zip(dataset.tiers, counts, strict=True)}
    return DataRecord("interactions", dataset.digest, len(dataset), description, first, last, known)


def _learner_record(candidate: Candidate, competition: Competition) -> LearnerRecord:
    excess, error = candidate.excess, candidate.standard_error
    metrics = {
        "loss": Figure(candidate.loss),
        "loss_above_best": Figure(excess, excess - error, excess + error),
        "loss_above_best_standard_error": Figure(error),
    }
    held_out, adequacy = competition.held_out, competition.adequacy[candidate.name]
    outcomes, nothing_drawn = held_out.free_quality, np.random.default_rng(0)
    for t, tier in enumerate(held_out.tiers):
        known = ~np.isnan(outcomes[:, t])
        figures = calibration_figures(adequacy[known, t], outcomes[known, t], rng=nothing_drawn, draws=0)
        metrics |= {f"{name}_{tier}": figure for name, figure in figures.items()}
    return LearnerRecord(
        candidate.name,
        candidate.name == competition.choice.name,
        learner_verdict(candidate, competition.choice),
        metrics,
    )


def _tables(run: Run) -> dict[str, Table]:
    strategies: Table = [
        {
            "strategy": one.name,
            "quality": one.quality,
            "cost_usd": one.cost_usd,
            "quality_kept": one.quality_kept.value,
            "saving": one.saving.value,
        }
        for one in run.assessment.strategies
    ]
    proven = [json.loads(json.dumps(one.to_dict())) for one in run.certification.slices]
    return {"strategies": strategies, "slices": _slices(run), "certified_slices": proven}


def _slices(run: Run) -> Table:
    ends = ("value", "low", "high")
    return [
        {"slice": one.name, "requests": one.n}
        | {f"quality_kept_{end}": getattr(one.quality_kept, end) for end in ends}
        | {f"saving_{end}": getattr(one.saving, end) for end in ends}
        for one in run.assessment.slices
    ]


def _description(run: Run) -> str:
    data = run.dataset
    source = "simulated data" if data.simulated else run.description
    lines = [
        f"**{run.trained.competition.choice.verdict}**",
        run.certification.verdict,
        f"{len(data):,} interactions, {source}. `report.html` under Artifacts says more; the registered model routes.",
    ]
    return "\n\n".join(lines)
