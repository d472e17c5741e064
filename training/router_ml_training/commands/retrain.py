"""`router-ml retrain`: learn a challenger from the event store in steps, and promote it if it passes its gates."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime, timedelta

from router_ml.cli.output import emit, table
from router_ml.errors import UsageError
from router_ml_training.commands.workbench import (
    Workbench,
    file_to_write,
    git_commit,
    open_workbench,
    steps,
    write_page,
)
from router_ml_training.engine import Engine, open_engine
from router_ml_training.evaluation.report import render_report
from router_ml_training.learning import Progress
from router_ml_training.retrain.job import Job
from router_ml_training.retrain.retraining import plan, retrain

__all__ = ["add_arguments", "moment", "run"]

_AGO = re.compile(r"(\d+)([dh])")
# What --fail-when-kept ends with: 1 and 2 are errors, after which a rerun, or a person, has something to do.
_KEPT = 3
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}
# Longer ago than anything was logged, and still a date.
_LONGEST = timedelta(days=365 * 1000)


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
    parser.add_argument("--since", metavar="TIME", help="leave older interactions out: 2026-11-01, or 30d, or 12h")
    parser.add_argument("--dry-run", action="store_true", help="say what would be read and done; write nothing")
    parser.add_argument("--force", action="store_true", help="run every step again, whatever is there")
    parser.add_argument("--report", type=file_to_write, metavar="FILE", help="also write the HTML report there")
    parser.add_argument("--no-mlflow", action="store_true", help="do not record the run in MLflow")
    parser.add_argument("--fail-when-kept", action="store_true", help=f"exit with {_KEPT} when the champion stays")


def run(args: argparse.Namespace) -> int:
    """Retrain; a champion that stays is a result like any other, and an exit code of its own to who asks for it."""
    bench = open_workbench(args)
    now = datetime.now(UTC)
    since = None if args.since is None else moment(args.since)
    with steps() as progress, open_engine(bench.training) as engine:
        job = _job(args, bench, now, since, progress, engine)
        if args.dry_run:
            return _dry_run(args, job)
        outcome = retrain(job, draw=args.report is not None)
    if args.report and outcome.report is not None:
        write_page(args.report, render_report(outcome.report))
    emit(args, outcome.record, outcome.text)
    return _KEPT if args.fail_when_kept and outcome.kept else 0


def moment(text: str) -> datetime | timedelta:
    """Read a date, a date and time (UTC where it says nothing else), or how long ago: `30d`, `12h`.

    Raises:
        UsageError: When it is none of these.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago is not None:
            return min(int(ago[1]) * _UNITS[ago[2]], _LONGEST)
        found = datetime.fromisoformat(text)
    except (ValueError, OverflowError) as error:
        message = f"--since: expected a time such as 2026-11-01, 2026-11-01T12:00 or 30d, got {text!r}"
        raise UsageError(message) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _job(
    args: argparse.Namespace,
    bench: Workbench,
    now: datetime,
    since: datetime | timedelta | None,
    progress: Progress,
    engine: Engine,
) -> Job:
    # Of an id that two logs have, the first counts: the store has the latest feedback.
    logs = (bench.log(args.store or bench.config.store.url, "store"), *(bench.log(path) for path in args.log))
    return Job(
        logs=logs,
        ladder=bench.ladder,
        training=bench.training,
        gates=bench.gates,
        mlflow=None if args.no_mlflow else bench.mlflow,
        quality=bench.config.policy.quality,
        shelf=bench.shelf,
        now=now,
        engine=engine,
        since=since,
        force=args.force,
        git_commit=git_commit(),
        progress=progress,
    )


def _dry_run(args: argparse.Namespace, job: Job) -> int:
    found = plan(job)
    record = {
        "logs": [str(log) for log in job.logs],
        "n_interactions": found.n_rows,
        "steps": list(found.steps),
        "learners": list(found.learners),
        "why": found.why,
    }
    rows = [
        ("logs", job.description),
        ("interactions", f"{found.n_rows:,}"),
        ("steps that would run", ", ".join(found.steps) or "none"),
        ("learners", ", ".join(found.learners) or "none"),
    ]
    emit(args, record, f"{table(('what', 'which'), rows)}\n\n{found.why}; nothing was written")
    return 0
