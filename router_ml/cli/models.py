"""`router-ml models`: list the bundles on the shelf, or every switch there was; show one; delete old ones."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict
from typing import Any

from router_ml.cli.arguments import whole_number
from router_ml.cli.model_detail import detail_record, detail_text
from router_ml.cli.output import emit, table
from router_ml.config import load_config
from router_ml.errors import UsageError
from router_ml.shelf import Shelf, ShelfEntry
from router_ml.switches import Switch

__all__ = ["add_arguments", "run"]

# What tells bundles apart at a glance; --json has every metric.
_SHOWN = ("quality_gap", "cs_97", "apgr", "aiq")

# What is meant where a switch names no version: nobody challenges, or the default bundle serves.
_NOBODY = {"promote": "default", "rollback": "default", "challenge": "-", "withdraw": "-", "canary": "-"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("version", nargs="?", metavar="VERSION", help="show everything that is known of this one")
    parser.add_argument(
        "--prune",
        type=whole_number,
        metavar="KEEP",
        help="delete all but the KEEP newest bundles; never the champion, the one before it, the challenger, or the "
        "default",
    )
    parser.add_argument("--history", action="store_true", help="list every switch there was, oldest first")


def run(args: argparse.Namespace) -> int:
    """List the bundles, oldest first."""
    shelf = Shelf(load_config(args.config, os.environ).models_dir)
    if args.version is not None:
        if args.history or args.prune is not None:
            raise UsageError("give a version to look at, or --history or --prune, not both")
        detail = detail_record(shelf, args.version)
        emit(args, detail, detail_text(detail))
        return 0
    deleted = [] if args.prune is None else shelf.prune(args.prune)
    if args.history:
        switches = shelf.switches()
        record = {"models_dir": shelf.directory, "switches": [one.to_dict() for one in switches], "deleted": deleted}
        emit(args, record, _history(switches))
        return 0
    entries = shelf.versions()
    record = {
        "models_dir": shelf.directory,
        "champion": next((entry.version for entry in entries if entry.champion), None),
        "challenger": next((entry.version for entry in entries if entry.challenger), None),
        "models": [_record(entry) for entry in entries],
        "deleted": deleted,
    }
    emit(args, record, _text(shelf, entries, deleted))
    return 0


def _record(entry: ShelfEntry) -> dict[str, Any]:
    metrics = {name: metric.model_dump() for name, metric in entry.metrics.items()}
    return {**asdict(entry), "created": entry.created.isoformat(), "metrics": metrics, "problem": entry.problem or None}


def _text(shelf: Shelf, entries: list[ShelfEntry], deleted: list[str]) -> str:
    lines = [f"deleted {', '.join(deleted)}"] if deleted else []
    if not entries:
        return "\n".join([*lines, f"no bundles in {shelf.directory}; the default bundle serves"])
    names = [name for name in _SHOWN if any(name in entry.metrics for entry in entries)]
    rows = [
        [
            "*" if entry.champion else "+" if entry.challenger else "",
            entry.version,
            f"{entry.created:%Y-%m-%d %H:%M}",
            entry.problem or f"{entry.learner}{' (simulated data)' if entry.simulated else ''}",
            *(f"{entry.metrics[name].value:.4g}" if name in entry.metrics else None for name in names),
        ]
        for entry in entries
    ]
    lines.append(table(["", "version", "created (UTC)", "learner", *names], rows))
    lines.append("* in service" if any(entry.champion for entry in entries) else "the default bundle is in service")
    if any(entry.challenger for entry in entries):
        lines.append("+ challenger")
    return "\n".join(lines)


def _history(switches: list[Switch]) -> str:
    if not switches:
        return "no switch yet; the default bundle serves"
    rows = [
        [
            f"{one.ts[:16].replace('T', ' ')}",
            one.action,
            one.before or _NOBODY[one.action],
            one.after or _NOBODY[one.action],
            one.cause,
            one.reason,
        ]
        for one in switches
    ]
    return table(["time (UTC)", "switch", "from", "to", "cause", "reason"], rows)
