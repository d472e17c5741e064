"""`router-ml retrain`: learn a challenger from the event store, and promote it if it is not worse than the champion."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml_training.assessment import headline
from router_ml_training.commands.train import train_on
from router_ml_training.commands.workbench import open_workbench, steps
from router_ml_training.evaluation.report import summary_table
from router_ml_training.pipeline import promote_if_not_worse
from router_ml_training.reading import Log
from router_ml_training.records import name_champion, report_of_run

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
    with steps() as progress:
        finished = train_on(logs, bench, now=now, mlflow=not args.no_mlflow, progress=progress)
        progress("comparing with the champion")
        gate = promote_if_not_worse(finished, bench.shelf, now=now)
        if gate.passed:
            name_champion(finished.mlflow_run_id, bench.mlflow)
    record = {
        "version": finished.version,
        "learner": finished.trained.learner,
        "promoted": gate.passed,
        "gate": asdict(gate),
        "n_interactions": len(finished.dataset),
        "mlflow_run_id": finished.mlflow_run_id,
        **headline(finished.assessment),
    }
    verb = "promoted" if gate.passed else "not promoted; the champion stays"
    text = f"{summary_table(report_of_run(finished, draw=False))}\n\n{finished.version} {verb}: {gate.reason}"
    emit(args, record, text)
    return 0 if gate.passed else 1
