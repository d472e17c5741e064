"""`router-ml archive`: copy past days of the event store to Parquet, and delete them from the store if asked to."""

from __future__ import annotations

import argparse
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from router_ml.cli.output import emit
from router_ml.config import load_config
from router_ml.errors import UsageError
from router_ml.store import open_store
from router_ml_training.archive import archive, open_place
from router_ml_training.commands.workbench import steps

__all__ = ["add_arguments", "run"]

_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--to", required=True, metavar="URL", help="s3://bucket/prefix, or a folder")
    parser.add_argument(
        "--before",
        type=_age,
        default=timedelta(0),
        metavar="AGE",
        help="only days that ended this long ago, such as 7d, 12h or 2w (default: every day that is over)",
    )
    parser.add_argument(
        "--since", type=_age, metavar="AGE", help="only days not older than this (default: all that the store has)"
    )
    parser.add_argument("--delete", action="store_true", help="then delete from the store what the archive has")
    parser.add_argument("--store", metavar="URL", help="the event store (default: [store] url of the configuration)")


def run(args: argparse.Namespace) -> int:
    """Archive the days that are over."""
    config = load_config(args.config, os.environ)
    url = args.store or config.store.url
    file = url.partition("?")[0].removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
    if file and not Path(file).exists():  # looking must not create it
        raise UsageError(f"there is no event store {file}; the service makes it, or name another with --store")
    place = open_place(args.to, config.objects)
    now = datetime.now(UTC)
    since = None if args.since is None else now - args.since
    with open_store(url) as store, steps() as progress:
        report = archive(store, place, before=now - args.before, since=since, delete=args.delete, progress=progress)
    emit(args, report.to_dict(), report.to_text())
    return 0


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected an age such as 7d, 12h or 2w, got '{text}'")
    return int(found[1]) * _UNITS[found[2]]
