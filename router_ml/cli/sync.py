"""`router-ml sync`: push bundles and pointers to object storage, pull them from there, or watch for changes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

from router_ml.cli.output import emit
from router_ml.config import Config, load_config
from router_ml.depot import Depot
from router_ml.errors import UsageError
from router_ml.objects import open_objects
from router_ml.shelf import Shelf
from router_ml.syncing import Synced, pull, push, watch

__all__ = ["add_arguments", "run"]

# What a request under way may take to end when the process is told to; everything it does is safe to cut off.
_PATIENCE_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{push,pull,watch}")
    up = kinds.add_parser("push", help="upload bundles, then say there who serves")
    down = kinds.add_parser("pull", help="download bundles, and follow the depot's champion and challenger")
    follow = kinds.add_parser("watch", help="pull again and again, until SIGTERM")
    for kind in (up, down):
        kind.add_argument("versions", nargs="*", metavar="VERSION", help="these bundles (default: what is missing)")
    down.add_argument("--if-any", action="store_true", help="exit code 0 also while nothing has been pushed yet")
    up.add_argument("--to", metavar="URL", help="s3://bucket/prefix (default: [objects] models)")
    for kind in (down, follow):
        kind.add_argument("--from", dest="source", metavar="URL", help="s3://bucket/prefix (default: [objects] models)")
    follow.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between two looks (default: 30)")
    for kind in (up, down, follow):
        # The host takes both before the kind; people write them at the end.
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        kind.add_argument("--config", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Push, pull or watch; exit code 1 when the storage cannot be reached or another writer was faster."""
    config = load_config(args.config, os.environ)
    shelf = Shelf(config.models_dir)
    if args.what == "push":
        depot = _depot(config, args.to, "--to")
        done = push(shelf, depot, args.versions)
        emit(args, {"url": depot.objects.url, **done.to_dict()}, f"{_text(done, 'pushed')} in {depot.objects.url}")
        return 0
    depot = _depot(config, args.source, "--from")
    if args.what == "pull":
        done = pull(shelf, depot, args.versions, if_any=args.if_any)
        emit(args, {"url": depot.objects.url, **done.to_dict()}, f"{_text(done, 'pulled')} in {shelf.directory}")
        return 0
    if not 0.0 < args.every <= 86_400.0:
        raise UsageError(f"--every: expected seconds, more than 0 and at most a day, got {args.every:g}")
    return _watch(args, shelf, depot)


def _depot(config: Config, url: str | None, option: str) -> Depot:
    url = url or config.objects.models
    if url is None:
        raise UsageError(f"which bucket? Pass {option} s3://bucket/prefix, or set models in [objects]")
    return Depot(open_objects(url, config.objects, os.environ))


def _text(done: Synced, verb: str) -> str:
    copied = f"{verb} {', '.join(done.versions)}" if done.versions else f"nothing to be {verb}"
    challenger = "" if done.challenger is None else f", challenger {done.challenger}"
    return f"{copied}; champion {done.champion}{challenger}"


def _watch(args: argparse.Namespace, shelf: Shelf, depot: Depot) -> int:
    stop, ends = threading.Event(), (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)

    def say(state: str, synced: Synced | None) -> None:
        ts = datetime.now(UTC).isoformat(timespec="seconds")
        record = {"ts": ts, "state": state, "ok": synced is not None}
        sys.stdout.write((json.dumps(record, ensure_ascii=False) if args.json else f"{ts} {state}") + "\n")
        sys.stdout.flush()

    # In a thread, so that a request that hangs does not keep the process from ending.
    options = {"every_s": args.every, "stop": stop, "say": say}
    thread = threading.Thread(target=watch, args=(shelf, depot), kwargs=options, daemon=True)
    thread.start()
    while thread.is_alive() and signal.sigtimedwait(ends, 1.0) is None:
        continue
    told = thread.is_alive()
    stop.set()
    thread.join(_PATIENCE_S)
    return 0 if told else 1
