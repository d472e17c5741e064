"""`router-ml store`: show what the event store holds; delete from it by tenant, request or age."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from router_ml.cli.output import emit
from router_ml.config import load_config
from router_ml.errors import UsageError
from router_ml.store import EventStore, StoreInfo, open_store

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{info,delete}")
    info = kinds.add_parser("info", help="how many interactions there are, of which kind, and from when to when")
    delete = kinds.add_parser("delete", help="delete interactions for good, with their feedback and background calls")
    delete.add_argument(
        "--id", action="append", metavar="ID", help="the interaction with this decision id (may be given several times)"
    )
    delete.add_argument("--tenant", metavar="NAME", help="everything of this tenant up to now")
    delete.add_argument(
        "--before", type=_time, metavar="DATE", help="what is older, such as 2026-11-22 (UTC); with --tenant, of theirs"
    )
    delete.add_argument("--yes", action="store_true", help="do not ask first")
    for kind in (info, delete):
        kind.add_argument("--store", metavar="URL", help="another event store than the configured one")
        # The host takes both before the kind; people write them at the end.
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        kind.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Show or delete; exit code 1 when the person who was asked said no."""
    url = args.store or load_config(args.config, os.environ).store.url
    if args.what == "info":
        with _open(url) as store:
            info = store.info()
        emit(args, asdict(info), _text(info))
        return 0
    if bool(args.id) == (args.tenant is not None or args.before is not None) or args.tenant == "":
        raise UsageError("say what to delete: --id, or --tenant, or --before, or --tenant and --before")
    if not args.yes and not _is_meant(_what(args)):
        emit(args, {"deleted": 0}, "nothing was deleted")
        return 1
    with _open(url) as store:
        deleted = store.delete(ids=args.id, tenant=args.tenant, before=args.before)
    emit(args, {"deleted": deleted}, f"deleted {deleted} interactions, with their feedback{_elsewhere(args)}")
    return 0


def _elsewhere(args: argparse.Namespace) -> str:
    """Name the command that reaches archives: the store does not know where they are."""
    if args.before is not None or not (args.id or args.tenant):
        return ""
    forget = (
        ["--forget-tenant", args.tenant] if args.tenant else [part for one in args.id for part in ("--forget-id", one)]
    )
    command = f"router-ml archive --to URL {shlex.join(forget)}"
    return f"\nWhere they were archived they still are; `{command}` takes them out there"


def _open(url: str) -> EventStore:
    file = url.partition("?")[0].removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
    if file and not Path(file).exists():  # looking must not create it
        raise UsageError(f"there is no event store {file}; the service makes it, or name another with --store")
    return open_store(url)


def _what(args: argparse.Namespace) -> str:
    if args.id:
        return f"{len(args.id)} interactions by their id"
    whose = "everybody's interactions" if args.tenant is None else f"all interactions of the tenant '{args.tenant}'"
    return whose if args.before is None else f"{whose} from before {args.before.isoformat()}"


def _is_meant(what: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"this would delete {what} for good; add --yes where nobody can be asked")
    sys.stderr.write(f"Delete {what}, with their feedback, for good? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _text(info: StoreInfo) -> str:
    span = "" if info.oldest is None else f", from {info.oldest:%Y-%m-%d %H:%M} to {info.newest:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"interactions  {info.interactions}{_modes(info.by_mode)}{span}",
        f"feedback      {info.feedback}",
        f"size          {info.size_bytes / 1e6:.1f} MB",
        f"schema        {info.schema}",
    ]
    return "\n".join(lines)


def _modes(by_mode: Mapping[str, int]) -> str:
    listed = ", ".join(f"{n} {mode}" for mode, n in sorted(by_mode.items()) if mode != "live")
    return f" ({listed})" if listed else ""


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a date such as 2026-11-22, got '{text}'") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
