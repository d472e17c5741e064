"""`router-ml train`: learn a bundle from logs and put it on the shelf."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml_training.assessment import headline
from router_ml_training.commands.workbench import (
    Workbench,
    file_to_write,
    git_commit,
    open_workbench,
    steps,
    write_page,
)
from router_ml_training.evaluation.report import ReportData, render_report, summary_table
from router_ml_training.learning import Progress
from router_ml_training.pipeline import Run, train_bundle
from router_ml_training.reading import Log, read_dataset, ripe_before
from router_ml_training.records import mlflow_tracker, record_run, report_of_run
from router_ml_training.sources import SOURCES
from router_ml_training.tracking_aliases import name_champion

__all__ = ["add_arguments", "run", "train_on"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log files, such as what `router-ml ingest` wrote")
    parser.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: %(default)s)")
    parser.add_argument("--promote", action="store_true", help="put the bundle into service without comparing it")
    parser.add_argument("--report", type=file_to_write, metavar="FILE", help="also write the HTML report there")
    parser.add_argument("--no-mlflow", action="store_true", help="do not record the run in MLflow")


def train_on(
    logs: Sequence[Log], bench: Workbench, *, now: datetime, mlflow: bool, draw: bool, progress: Progress
) -> tuple[Run, ReportData]:
    """Read logs, train on them under a configuration, and put the bundle on the shelf.

    Args:
        logs: What to learn from.
        bench: The configuration.
        now: Time of the run.
        mlflow: Whether the run is recorded there.
        draw: Whether the report has pictures; what is recorded has them in any case.
        progress: Told what is being done.

    Returns:
        The run, and its report.
    """
    described = ", ".join(map(str, logs))
    ripe = ripe_before(now, bench.training.maturity_s)
    dataset = read_dataset(logs, bench.ladder, ripe_before=ripe, progress=progress)
    run = train_bundle(
        dataset,
        bench.ladder,
        bench.training,
        bench.shelf,
        quality=bench.config.policy.quality,
        now=now,
        description=described,
        git_commit=git_commit(),
        track=mlflow_tracker(bench.mlflow, now) if mlflow else (lambda *_: None),
        progress=progress,
    )
    report = report_of_run(run, draw=mlflow or draw)
    if mlflow:
        progress("recording the run in MLflow")
        record_run(run, bench.training, bench.mlflow, bench.shelf, report=report)
    return run, report


def run(args: argparse.Namespace) -> int:
    """Train, put the bundle on the shelf, print what it is worth on held-out rows."""
    bench = open_workbench(args)
    now = datetime.now(UTC)
    logs = [bench.log(location, args.source) for location in args.logs]
    with steps() as progress:
        finished, report = train_on(
            logs, bench, now=now, mlflow=not args.no_mlflow, draw=args.report is not None, progress=progress
        )
    if args.promote:
        bench.shelf.promote(finished.version, reason="promoted by `router-ml train --promote`", now=now)
        if not args.no_mlflow:
            name_champion(finished.version, bench.shelf, bench.mlflow)
    if args.report:
        write_page(args.report, render_report(report))
    record = {
        "version": finished.version,
        "learner": finished.trained.learner,
        "verdict": finished.trained.competition.choice.verdict,
        "promoted": args.promote,
        "mlflow_run_id": finished.mlflow_run_id,
        **headline(finished.assessment),
    }
    promote = f"`router-ml promote {finished.version}`"
    if args.promote:
        promoted = "in service"
    elif finished.certification.beyond_constant:
        promoted = f"on the shelf; {promote} serves it"
    else:
        promoted = f"on the shelf, unproven; {promote} would serve it all the same"
    text = f"{summary_table(report)}\n\n{record['verdict']}\n{finished.version} is {promoted}"
    emit(args, record, text)
    return 0
