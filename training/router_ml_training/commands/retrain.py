"""`router-ml retrain`: learn a challenger from the event store, and promote it if it is not worse than the champion."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml_training.assessment import headline
from router_ml_training.commands.workbench import git_commit, open_workbench, steps
from router_ml_training.evaluation.report import summary_table
from router_ml_training.pipeline import promote_if_not_worse, train_bundle
from router_ml_training.reading import Log, read_dataset, ripe_before
from router_ml_training.records import mlflow_tracker, name_champion, report_of_run

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="FILE",
        help="a log to learn from besides the event store (may be given several times)",
    )
    parser.add_argument("--store", metavar="URL", help="the event store (default: [store] url of the configuration)")
    parser.add_argument("--no-mlflow", action="store_true", help="do not record the run in MLflow")


def run(args: argparse.Namespace) -> int:
    """Train a challenger, compare, promote or keep the champion; exit code 1 when the champion is kept."""
    bench = open_workbench(args)
    now = datetime.now(UTC)
    logs = [*(Log(path) for path in args.log), Log(args.store or bench.config.store.url, "store")]
    described = ", ".join(map(str, logs))
    with steps() as progress:
        ripe = ripe_before(now, bench.training.maturity_s)
        dataset = read_dataset(logs, bench.ladder, ripe_before=ripe, progress=progress)
        finished = train_bundle(
            dataset,
            bench.ladder,
            bench.training,
            bench.shelf,
            quality=bench.config.policy.quality,
            now=now,
            description=described,
            git_commit=git_commit(),
            track=(lambda *_: None) if args.no_mlflow else mlflow_tracker(bench.mlflow, bench.training, now, described),
            progress=progress,
        )
        progress("comparing with the champion")
        gate = promote_if_not_worse(finished, bench.shelf, now=now)
        if gate.passed:
            name_champion(finished.mlflow_run_id, bench.mlflow)
    record = {
        "version": finished.version,
        "learner": finished.trained.learner,
        "promoted": gate.passed,
        "gate": asdict(gate),
        "n_interactions": len(dataset),
        "mlflow_run_id": finished.mlflow_run_id,
        **headline(finished.assessment),
    }
    verb = "promoted" if gate.passed else "not promoted; the champion stays"
    text = f"{summary_table(report_of_run(finished))}\n\n{finished.version} {verb}: {gate.reason}"
    emit(args, record, text)
    return 0 if gate.passed else 1
