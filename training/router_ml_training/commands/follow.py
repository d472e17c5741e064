"""`router-ml follow`: put into service what a person named `champion` in MLflow."""

from __future__ import annotations

import argparse
import logging
import time
from datetime import UTC, datetime

from router_ml.cli.output import emit
from router_ml.errors import MissingExtra, RouterError, UsageError
from router_ml_training.commands.workbench import open_workbench
from router_ml_training.retrain.following import Followed, follow

__all__ = ["add_arguments", "run"]

_log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--wait", type=_wait, default=0.0, metavar="SECONDS", help="how long to wait for a change")
    parser.add_argument(
        "--every",
        type=_every,
        default=10.0,
        metavar="SECONDS",
        help="how often to look meanwhile (default: %(default)s)",
    )
    parser.add_argument("--anyway", action="store_true", help="also a bundle that failed a required gate")


def run(args: argparse.Namespace) -> int:
    """Follow MLflow's alias; exit code 0 when what it names is in service, 1 when it names nothing in time."""
    bench = open_workbench(args)
    until, said = time.monotonic() + args.wait, ""
    while True:
        try:
            found = follow(bench.shelf, bench.mlflow, anyway=args.anyway, now=datetime.now(UTC))
            if found.changed or time.monotonic() >= until:
                break
        except (UsageError, MissingExtra):
            raise
        except RouterError as error:  # a server that is away comes back, a person moves the alias again
            if time.monotonic() >= until:
                raise
            if str(error) != said:
                said = str(error)
                _log.warning("still waiting: %s", said)
        time.sleep(max(min(args.every, until - time.monotonic()), 0.0))
    emit(args, {"champion": found.version, "changed": found.changed, "before": found.before}, _said(found))
    return 0 if found.version is not None else 1


def _wait(text: str) -> float:
    return _seconds(text, at_least=0.0)


def _every(text: str) -> float:
    return _seconds(text, at_least=1.0)  # each look asks the server


def _seconds(text: str, *, at_least: float) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected seconds, got '{text}'") from error
    if not value >= at_least:
        raise argparse.ArgumentTypeError(f"expected {at_least:g} second{'s' * (at_least != 1)} or more, got {text}")
    return value


def _said(found: Followed) -> str:
    if found.version is None:
        return "MLflow's alias 'champion' names no bundle yet: a person gives it to a version of the registered model"
    if not found.changed:
        return f"{found.version} is in service already, as MLflow's alias 'champion' says"
    return f"{found.version} is in service, as MLflow's alias 'champion' says; before: {found.before or 'the default'}"
