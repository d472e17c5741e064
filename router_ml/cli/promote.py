"""`router-ml promote VERSION`: put a bundle into service."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from router_ml.cli.announcing import announce
from router_ml.cli.output import emit
from router_ml.config import load_config
from router_ml.shelf import Shelf

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("version", help="a version that `router-ml models` lists")
    parser.add_argument("--reason", default="promoted by hand", help="why, for the record of switches (one sentence)")
    parser.add_argument("--no-mlflow", action="store_true", help="leave MLflow's alias champion where it is")


def run(args: argparse.Namespace) -> int:
    """Verify the bundle and make it the champion."""
    config = load_config(args.config, os.environ)
    shelf = Shelf(config.models_dir)
    before = shelf.champion()
    shelf.promote(args.version, reason=args.reason, now=datetime.now(UTC))
    record = {"champion": args.version, "replaced": before, "reason": args.reason}
    emit(args, record, f"{args.version} is now in service, in place of {before or 'the default bundle'}")
    if not args.no_mlflow:
        announce(config, shelf)
    return 0
