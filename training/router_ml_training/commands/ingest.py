"""`router-ml ingest`: check a log and bring it into one Parquet file to learn from."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from router_ml.cli.output import emit
from router_ml.config import Config, load_config, parse_section
from router_ml.errors import UsageError
from router_ml_training.ingest import MAX_REJECTS, ingest
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import parse_tiers
from router_ml_training.sources import SOURCES, SourceOptions

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("logs", nargs="+", metavar="FILE", help="file, folder, pattern, s3:// or event store URL")
    parser.add_argument("--source", default="native", help=f"kind of log: {', '.join(SOURCES)} (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    parser.add_argument("--tiers", help="for --source outcomes: whose outcomes each tier has, small=MODEL,large=MODEL")
    parser.add_argument("--rejects", type=Path, help="where rejected rows go (default: OUT with .rejects.jsonl)")
    parser.add_argument(
        "--max-rejects",
        type=float,
        default=MAX_REJECTS,
        metavar="SHARE",
        help="refuse the import when more than this share of the rows is rejected (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Import the logs and report what they are worth.

    Raises:
        UsageError: When an argument is wrong, or a file cannot be written.
        DataError: When a log cannot be read, is empty, or has too many bad rows; an earlier OUT stays as it was.
    """
    source = SOURCES.load(args.source)
    if not 0.0 <= args.max_rejects <= 1.0:
        raise UsageError(f"--max-rejects: expected a share from 0 to 1, got {args.max_rejects:g}")
    if args.tiers and args.source != "outcomes":
        raise UsageError(f"--tiers: only --source outcomes takes it; a log of source '{args.source}' names its tiers")
    config = load_config(args.config, os.environ)
    with _progress() as progress:
        report = ingest(
            source,
            args.logs,
            _options(config, args),
            out=args.out,
            now=datetime.now(UTC),
            rejects=args.rejects,
            max_rejects=args.max_rejects,
            progress=progress,
        )
    emit(args, report.to_dict(), report.to_text())
    return 0


def _options(config: Config, args: argparse.Namespace) -> SourceOptions:
    training = parse_section(TrainingSettings, config.sections["training"], where=config.source, prefix="training.")
    # A table of outcomes brings tiers and costs of its own, which need not be those of the configuration.
    return SourceOptions(
        tiers=parse_tiers(args.tiers) if args.tiers else {},
        adequate_bar=training.adequate_bar,
        ladder=None if args.source == "outcomes" else config.ladder,
        objects=config.objects,
    )


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} rows read"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("ingest", total=None)
        yield lambda n_read: bar.update(task, completed=n_read)
