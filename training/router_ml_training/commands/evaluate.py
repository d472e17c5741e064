"""`router-ml evaluate`: measure a bundle on a log it was not trained on."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from router_ml.bundle import Bundle, load_bundle
from router_ml.cli.output import emit
from router_ml.errors import UsageError
from router_ml_training.assessment import Assessment, assess, headline
from router_ml_training.commands.workbench import Workbench, open_workbench, steps
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.report import ModelFacts, ReportData, summary_table
from router_ml_training.reading import Log, read_dataset
from router_ml_training.reporting import data_facts, report_data
from router_ml_training.scored import score_with_bundle
from router_ml_training.sources import SOURCES

__all__ = ["add_arguments", "evaluate", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log files, such as what `router-ml ingest` wrote")
    parser.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: %(default)s)")
    parser.add_argument("--bundle", metavar="VERSION", help="version on the shelf, or a folder (default: the champion)")
    parser.add_argument("--quality", type=float, help="share of the best tier's quality to keep (default: [policy])")


def run(args: argparse.Namespace) -> int:
    """Print what the bundle is worth on the log."""
    bundle, assessment, report = evaluate(args)
    emit(args, {"version": bundle.version, **headline(assessment)}, summary_table(report))
    return 0


def evaluate(args: argparse.Namespace) -> tuple[Bundle, Assessment, ReportData]:
    """Measure the bundle that `args` names on the logs that `args` names."""
    if args.quality is not None and not 0.0 < args.quality <= 1.0:
        raise UsageError(f"--quality: expected a share of the best tier's quality in (0, 1], got {args.quality:g}")
    bench = open_workbench(args)
    bundle = _bundle(bench, args.bundle)
    ladder = bench.config.ladder or bundle.ladder
    logs = [Log(location, args.source) for location in args.logs]
    now = datetime.now(UTC)
    with steps() as progress:
        dataset = read_dataset(logs, ladder, progress=progress)
        progress("scoring")
        assessment = assess(
            score_with_bundle(dataset, bundle, ladder),
            bundle.policy,
            quality=args.quality or bench.config.policy.quality,
            n_train=bundle.manifest.trained_on.n_interactions,
            rng=np.random.default_rng(bench.training.seed),
        )
    report = report_data(
        assessment,
        title="Router evaluation",
        created=now,
        data=data_facts(dataset, assessment, ", ".join(map(str, logs))),
        model=ModelFacts(bundle.manifest.learner, bundle.version, bundle.manifest.mlflow_run_id),
        choice=None,
        notes=_own_log(dataset, bundle),
    )
    return bundle, assessment, report


def _own_log(dataset: Dataset, bundle: Bundle) -> tuple[str, ...]:
    if dataset.digest != bundle.manifest.trained_on.digest:
        return ()
    said = f"This is the log that {bundle.version} was trained on: the figures flatter it. Measure it on a later log."
    return (said,)


def _bundle(bench: Workbench, name: str | None) -> Bundle:
    if name is None:
        return load_bundle(bench.shelf.champion_path())
    folder = Path(name)
    return load_bundle(folder if folder.is_dir() else bench.shelf.path(name))
