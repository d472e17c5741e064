"""`router-ml archive`: copy past days of the event store to Parquet, and delete them from the store if asked to."""

from __future__ import annotations

import argparse
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from router_ml.cli.output import emit
from router_ml.config import Config, load_config
from router_ml.errors import UsageError
from router_ml.store import open_store
from router_ml_training.archive import archive, forget
from router_ml_training.archive_places import open_place
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
    parser.add_argument("--forget-tenant", metavar="NAME", help="instead: write the archive anew without this tenant")
    parser.add_argument(
        "--forget-id",
        action="append",
        metavar="ID",
        help="instead: write the archive anew without this interaction (may be given several times)",
    )
    parser.add_argument("--store", metavar="URL", help="the event store (default: [store] url of the configuration)")


def run(args: argparse.Namespace) -> int:
    """Archive the days that are over, or take out of the archive what is to be forgotten."""
    config = load_config(args.config, os.environ)
    if args.forget_tenant is not None or args.forget_id:
        return _forget(args, config)
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


def _forget(args: argparse.Namespace, config: Config) -> int:
    if args.delete or args.since is not None or args.before or args.store or args.forget_tenant == "":
        raise UsageError("--forget-tenant NAME and --forget-id ID go with --to alone: they look at every archived day")
    with steps() as progress:
        place = open_place(args.to, config.objects)
        report = forget(place, ids=args.forget_id or (), tenant=args.forget_tenant, progress=progress)
    emit(args, report.to_dict(), report.to_text())
    return 0


def _age(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected an age such as 7d, 12h or 2w, got '{text}'")
    return int(found[1]) * _UNITS[found[2]]
