"""`router-ml evaluate`: measure a bundle on a log it was not trained on."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from router_ml.bundle import Bundle, load_bundle
from router_ml.cli.output import emit
from router_ml.errors import UsageError
from router_ml_training.assessment import Assessment, assess, headline
from router_ml_training.commands.workbench import Workbench, open_workbench, steps
from router_ml_training.drift import TRAFFIC_KINDS, drift_between
from router_ml_training.evaluation.figures_review import Importance
from router_ml_training.evaluation.report import ModelFacts, ReportData, summary_table
from router_ml_training.importance import bundle_chances, importance_of
from router_ml_training.learning import Progress
from router_ml_training.offpolicy_report import offpolicy_report
from router_ml_training.profile import load_profile, profile_of
from router_ml_training.reading import Log, read_dataset
from router_ml_training.reporting import data_facts, gate_lines, learned_from, report_data
from router_ml_training.scored import Scored, score_with_bundle
from router_ml_training.sources import SOURCES

__all__ = ["add_arguments", "add_inputs", "evaluate", "named_bundle", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    add_inputs(parser)
    parser.add_argument(
        "--offpolicy",
        action="store_true",
        help="estimate the policy's quality and cost from a log that another policy wrote, by its propensities",
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Declare what is measured on what, for every command that measures a bundle."""
    parser.add_argument(
        "logs",
        nargs="*",
        metavar="LOG",
        help="log files, such as what `router-ml ingest` wrote (default: the event store)",
    )
    parser.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: %(default)s)")
    parser.add_argument("--bundle", metavar="VERSION", help="version on the shelf, or a folder (default: the champion)")
    parser.add_argument("--quality", type=float, help="share of the best tier's quality to keep (default: [policy])")


def run(args: argparse.Namespace) -> int:
    """Print what the bundle is worth on the log."""
    if args.offpolicy:
        return _offpolicy(args)
    bundle, assessment, report = evaluate(args, draw=False)
    record = {"version": bundle.version, **headline(assessment), "cautions": list(report.cautions)}
    emit(args, record, summary_table(report))
    return 0


def evaluate(args: argparse.Namespace, *, draw: bool = True) -> tuple[Bundle, Assessment, ReportData]:
    """Measure the bundle that `args` names on the logs that `args` names; draw the report's pictures if asked to."""
    now = datetime.now(UTC)
    with steps() as progress:
        case = _case(args, progress)
        assessment = assess(
            case.scored,
            case.bundle.policy,
            quality=case.quality,
            n_train=case.bundle.manifest.trained_on.n_interactions,
            rng=np.random.default_rng(case.bench.training.seed),
        )
        importance: tuple[Importance, ...] = ()
        if draw:
            progress("shuffling features")
            importance = importance_of(
                case.scored,
                case.bundle.policy,
                bundle_chances(case.bundle),
                quality=case.quality,
                rng=np.random.default_rng(case.bench.training.seed),
            )
    bundle, dataset = case.bundle, case.scored.dataset
    report = report_data(
        assessment,
        title="Router evaluation",
        created=now,
        data=data_facts(dataset, assessment, ", ".join(map(str, case.logs))),
        model=ModelFacts(bundle.manifest.learner, bundle.version, bundle.manifest.mlflow_run_id),
        choice=None,
        cautions=learned_from(dataset, bundle),
        importance=importance,
        drift=_shifts(bundle, case.scored) if draw else (),
        gates=gate_lines(case.bench.shelf, bundle.version),
        draw=draw,
    )
    return bundle, assessment, report


def _offpolicy(args: argparse.Namespace) -> int:
    with steps() as progress:
        case = _case(args, progress)
        found = offpolicy_report(case.scored, case.bundle.policy, quality=case.quality)
    notes = learned_from(case.scored.dataset, case.bundle)
    record = {"version": case.bundle.version, **found.to_dict()}
    emit(args, {**record, "notes": [*record["notes"], *notes]}, "\n".join((found.to_text(), *notes)))
    return 1 if found.refused else 0


@dataclass(frozen=True, slots=True)
class _Case:
    """What is measured on what."""

    bench: Workbench
    bundle: Bundle
    logs: tuple[Log, ...]
    scored: Scored
    quality: float


def _case(args: argparse.Namespace, progress: Progress) -> _Case:
    if args.quality is not None and not 0.0 < args.quality <= 1.0:
        raise UsageError(f"--quality: expected a share of the best tier's quality in (0, 1], got {args.quality:g}")
    bench = open_workbench(args)
    bundle = named_bundle(bench, args.bundle)
    ladder = bench.config.ladder or bundle.ladder
    # What the service recorded, where nothing else is named.
    named = [(location, args.source) for location in args.logs] or [(bench.config.store.url, "store")]
    logs = tuple(bench.log(location, source) for location, source in named)
    dataset = read_dataset(logs, ladder, progress=progress)
    progress("scoring")
    scored = score_with_bundle(dataset, bundle, ladder)
    return _Case(bench, bundle, logs, scored, args.quality or bench.config.policy.quality)


def _shifts(bundle: Bundle, scored: Scored) -> list[tuple[str, float, float]]:
    """Return how far the log is from what the bundle learned from; nothing where it does not say what that was."""
    reference = load_profile(bundle.path)
    if reference is None:
        return []
    current = profile_of(scored.dataset, scored.adequacy)
    # Another policy than the one that wrote the training log changes the rest, whatever the traffic does.
    return drift_between(reference, current, kinds=TRAFFIC_KINDS).to_rows()


def named_bundle(bench: Workbench, name: str | None) -> Bundle:
    """Load the bundle of that version or folder; None: the champion."""
    if name is None:
        return load_bundle(bench.shelf.champion_path())
    folder = Path(name)
    return load_bundle(folder if folder.is_dir() else bench.shelf.path(name))
