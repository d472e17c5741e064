"""`router-ml drift`: has the traffic, or a tier, changed since the router in service was trained."""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from router_ml.cli.output import emit
from router_ml.config import parse_section
from router_ml.errors import DataError
from router_ml.watch import Watch, read_watch, update_watch
from router_ml_training.alerts import Alert, raise_alerts, webhook_of
from router_ml_training.commands.evaluate import named_bundle
from router_ml_training.commands.workbench import Workbench, file_to_write, open_workbench, steps, write_page
from router_ml_training.profile import load_profile
from router_ml_training.reading import Log
from router_ml_training.settings import AlertSettings
from router_ml_training.traffic_windows import read_windows
from router_ml_training.watching import Watched, golden_alarms, watch_record, watch_traffic

__all__ = ["add_arguments", "run"]

log = logging.getLogger(__name__)

_HOURS = {"h": 1, "d": 24, "w": 168}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument(
        "--since", type=_length, default="7d", metavar="7d", help="length of the window: 12h, 7d, 2w (default: 7d)"
    )
    parser.add_argument(
        "--until", type=_time, metavar="TIME", help="its end (default: now); one before the last look's is told nobody"
    )
    parser.add_argument(
        "--log",
        action="append",
        default=[],
        metavar="FILE",
        help="a log to look at instead of the event store (may be given several times)",
    )
    parser.add_argument("--store", metavar="URL", help="the event store (default: [store] url of the configuration)")
    parser.add_argument("--bundle", metavar="VERSION", help="version on the shelf, or a folder (default: the champion)")
    parser.add_argument("--out", type=file_to_write, metavar="FILE", help="also write what --json prints there")
    parser.add_argument("--dry-run", action="store_true", help="tell nobody, and leave watch.json as it is")


def run(args: argparse.Namespace) -> int:
    """Look, write down what was found, tell people; exit code 1 when something drifted or an alarm rings."""
    bench, now = open_workbench(args), datetime.now(UTC)
    settings = parse_section(
        AlertSettings, bench.config.sections["alerts"], where=bench.config.source, prefix="alerts."
    )
    webhook = None if args.dry_run else webhook_of(settings, os.environ)
    with steps() as progress:
        bundle = named_bundle(bench, args.bundle)
        windows = read_windows(
            _logs(args, bench),
            bench.config.ladder or bundle.ladder,
            length=args.since,
            until=args.until or now,
            version=bundle.version,
            progress=progress,
        )
        progress("comparing")
        rng = np.random.default_rng(bench.training.seed)
        found = watch_traffic(windows, bundle, load_profile(bundle.path), rng=rng)
    if not args.dry_run and not _is_past(found, bench):
        _write_down(found, bench, settings, webhook, now)
    record = {"checked": now.isoformat(), **found.to_dict()}
    if args.out:
        write_page(args.out, json.dumps(record, indent=2) + "\n")
    emit(args, record, found.to_text())
    return 0 if found.quiet else 1


def _logs(args: argparse.Namespace, bench: Workbench) -> list[Log]:
    files = [bench.log(location) for location in args.log]
    if files and args.store is None:
        return files
    return [*files, Log(args.store or bench.config.store.url, "store")]


def _is_past(found: Watched, bench: Workbench) -> bool:
    """Return whether a later time has been looked at already: what was before is not to be taken for the present."""
    last = _previous(bench.shelf.directory)
    if last is None or last.n == 0 or last.until <= found.until:
        return False
    log.warning("traffic until %s has been looked at already: nobody is told, watch.json stays as it is", last.until)
    return True


def _write_down(found: Watched, bench: Workbench, settings: AlertSettings, webhook: str | None, now: datetime) -> None:
    directory = bench.shelf.directory
    watch = watch_record(found, now=now, previous=_previous(directory))
    # The golden set's are told here as well: the service, which asks it, knows no webhook.
    others = [Alert(one.kind, f"{one.tier} {one.direction}", one.text) for one in golden_alarms(watch) if one.rings]
    alerts = (*found.alerts, *others)
    sent = raise_alerts(alerts, settings, bundle=found.bundle, sent=watch.sent, now=now, webhook=webhook)
    # Read again: a golden set may have ended meanwhile.
    update_watch(directory, lambda last: watch_record(found, now=now, previous=last).model_copy(update={"sent": sent}))


def _previous(directory: Path) -> Watch | None:
    try:
        return read_watch(directory)
    except DataError as error:
        log.warning("watch_unreadable: %s", error)
        return None


def _length(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})([hdw])", text)
    if found is None or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"expected a length such as 12h, 7d or 2w, got '{text}'")
    return timedelta(hours=int(found[1]) * _HOURS[found[2]])


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a time such as 2026-11-22T10:00, got '{text}'") from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found
