"""`router-ml report`: one self-contained HTML page on what a bundle is worth on a log."""

from __future__ import annotations

import argparse
from pathlib import Path

from router_ml.cli.output import emit
from router_ml_training.commands import evaluate
from router_ml_training.commands.workbench import file_to_write, write_page
from router_ml_training.evaluation.report import headline, render_report

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    evaluate.add_inputs(parser)
    parser.add_argument(
        "--out", type=file_to_write, default=Path("report.html"), help="the page to write (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Write the page."""
    bundle, _, report = evaluate.evaluate(args)
    write_page(args.out, render_report(report))
    cautions = list(report.cautions)
    record = {"version": bundle.version, "out": args.out, "headline": headline(report), "cautions": cautions}
    emit(args, record, "\n".join([headline(report), *cautions, str(args.out)]))
    return 0
