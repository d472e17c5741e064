"""`router-ml rollback`: put the bundle back into service that the champion replaced."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml.config import load_config
from router_ml.shelf import Shelf

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("--reason", default="rolled back by hand", help="why, for the record of switches")


def run(args: argparse.Namespace) -> int:
    """Verify the earlier bundle and make it the champion."""
    shelf = Shelf(load_config(args.config, os.environ).models_dir)
    before = shelf.champion()
    version = shelf.rollback(now=datetime.now(UTC), reason=args.reason)
    emit(args, {"champion": version, "replaced": before}, f"{version} is back in service, in place of {before}")
    return 0
