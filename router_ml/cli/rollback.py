"""`router-ml rollback`: put the bundle back into service that the champion replaced."""

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
    parser.add_argument("--reason", default="rolled back by hand", help="why, for the record of switches")
    parser.add_argument("--no-mlflow", action="store_true", help="leave MLflow's alias champion where it is")


def run(args: argparse.Namespace) -> int:
    """Verify the earlier bundle and make it the champion."""
    config = load_config(args.config, os.environ)
    shelf = Shelf(config.models_dir)
    before = shelf.champion()
    version = shelf.rollback(now=datetime.now(UTC), reason=args.reason)
    emit(args, {"champion": version, "replaced": before}, f"{version} is back in service, in place of {before}")
    if not args.no_mlflow:
        announce(config, shelf)
    return 0
