"""`router-ml challenge VERSION`: put a bundle up beside the champion, or take it down again with --none."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml.config import load_config
from router_ml.errors import UsageError
from router_ml.shelf import Shelf

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("version", nargs="?", help="a version that `router-ml models` lists")
    parser.add_argument("--none", action="store_true", help="withdraw the challenger")
    parser.add_argument("--share", type=float, help="what it answers of the requests (default: rollout.canary_share)")
    parser.add_argument("--reason", default="by hand", help="why, for the record of switches (one sentence)")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle and make it the challenger, or withdraw it."""
    if args.none == (args.version is not None):
        raise UsageError("give a version, or --none to withdraw the challenger")
    if args.none and args.share is not None:
        raise UsageError("--share: there is no share without a challenger; leave it out")
    shelf = Shelf(load_config(args.config, os.environ).models_dir)
    now = datetime.now(UTC)
    if args.none:
        withdrawn = shelf.withdraw(reason=args.reason, now=now)
        record = {"challenger": None, "share": None, "withdrawn": withdrawn, "reason": args.reason}
        emit(args, record, f"{withdrawn} is withdrawn; the champion answers everything")
        return 0
    shelf.challenge(args.version, reason=args.reason, now=now, share=args.share)
    record = {"challenger": args.version, "share": args.share, "withdrawn": None, "reason": args.reason}
    share = "the configured share of the requests" if args.share is None else f"{args.share:.3g} of the requests"
    emit(args, record, f"{args.version} challenges the champion and answers {share}")
    return 0
