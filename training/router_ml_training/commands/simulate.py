"""`router-ml simulate`: make up a workload, or the log that a policy would have left behind on known outcomes."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from router_ml.cli.output import emit
from router_ml.errors import UsageError
from router_ml_training.simulate import POLICIES
from router_ml_training.simulate.behaviours import LogOptions
from router_ml_training.simulate.outcomes import load_outcomes, outcome_table, parse_tiers
from router_ml_training.simulate.policies import simulate_log
from router_ml_training.simulate.workload import THREE_TIERS, TWO_TIERS, generate

__all__ = ["add_arguments", "run"]

_DEFAULTS = LogOptions()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="{workload,log}")
    workload = kinds.add_parser("workload", help="make up requests of a company, and what each tier answers to them")
    workload.add_argument("--n", type=int, default=5000, help="number of requests (default: %(default)s)")
    workload.add_argument("--days", type=int, default=28, help="length of the period (default: %(default)s)")
    workload.add_argument(
        "--ladder", type=int, choices=(2, 3), default=2, help="number of tiers (default: %(default)s)"
    )
    workload.add_argument("--out", type=Path, required=True, help="the Parquet file to write")
    log = kinds.add_parser("log", help="write the log of a policy on known outcomes")
    log.add_argument("--outcomes", type=Path, required=True, help="Parquet table of outcomes, or a workload")
    log.add_argument("--tiers", help="small=MODEL,large=MODEL (default: every model is a tier)")
    log.add_argument("--policy", default="cascade", help=f"{', '.join(POLICIES)} (default: %(default)s)")
    log.add_argument("--out", type=Path, required=True, help="the JSON Lines file to write")
    log.add_argument(
        "--bar",
        type=float,
        default=_DEFAULTS.bar,
        help="quality from which an answer is adequate (default: %(default)s)",
    )
    log.add_argument(
        "--epsilon", type=float, default=_DEFAULTS.epsilon, help="exploration of `skewed` (default: %(default)s)"
    )
    log.add_argument("--judge-noise", type=float, default=0.0, help="share of wrong verdicts (default: %(default)s)")
    log.add_argument("--error-rate", type=float, default=0.0, help="failing calls to add (default: %(default)s)")
    log.add_argument(
        "--audit-share", type=float, default=0.0, help="requests to run on all tiers (default: %(default)s)"
    )
    log.add_argument("--thumbs-share", type=float, help="requests judged by late thumbs only (default: 0)")
    for kind in (workload, log):
        kind.add_argument("--seed", type=int, default=0, help="same seed, same output (default: %(default)s)")
        # The host takes it before the kind; people write it at the end.
        kind.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Write the file and say what is in it.

    Raises:
        UsageError: When an argument is wrong or the file cannot be written.
        DataError: When the outcomes cannot be read.
    """
    if args.seed < 0:
        raise UsageError(f"--seed: expected a number from 0 up, got {args.seed}")
    return _workload(args) if args.what == "workload" else _log(args)


def _workload(args: argparse.Namespace) -> int:
    if args.n < 1 or args.days < 1:
        raise UsageError(f"--n and --days: expected numbers from 1 up, got {args.n} and {args.days}")
    tiers = TWO_TIERS if args.ladder == 2 else THREE_TIERS
    with _replacing(args.out) as file, _progress("requests written", args.n) as progress:
        frame = generate(args.n, rng=np.random.default_rng(args.seed), tiers=tiers, days=args.days, progress=progress)
        frame.write_parquet(file)
    table = outcome_table(frame, {tier.name: tier.model for tier in tiers})
    quality = dict(zip(table.tiers, table.quality.mean(axis=0).round(4).tolist(), strict=True))
    named = ",".join(f"{tier}={model}" for tier, model in zip(table.tiers, table.models, strict=True))
    record = {"written": args.out, "requests": args.n, "tiers": named, "quality": quality, "simulated": True}
    emit(args, record, f"{args.out}: {args.n} simulated requests; mean quality {_listed(quality)}\n--tiers {named}")
    return 0


def _log(args: argparse.Namespace) -> int:
    POLICIES.load(args.policy)
    options = LogOptions(
        bar=args.bar,
        epsilon=args.epsilon,
        judge_noise=args.judge_noise,
        error_rate=args.error_rate,
        audit_share=args.audit_share,
        feedback="check" if args.thumbs_share is None else "thumbs",
        thumbs_share=args.thumbs_share or 0.0,
    )
    outcomes = load_outcomes(args.outcomes, parse_tiers(args.tiers) if args.tiers else None)
    interactions = simulate_log(outcomes, args.policy, rng=np.random.default_rng(args.seed), options=options)
    attempts = dict.fromkeys(outcomes.tiers, 0)
    with _replacing(args.out) as file, _progress("interactions written", len(outcomes)) as progress:
        for done, item in enumerate(interactions, start=1):
            file.write(item.to_json().encode() + b"\n")
            for attempt in item.attempts:
                attempts[attempt.tier] += 1
            progress(done)
    record = {
        "written": args.out,
        "interactions": len(outcomes),
        "policy": args.policy,
        "attempts": attempts,
        "simulated": True,
    }
    what = f"{len(outcomes)} interactions under the simulated policy {args.policy}"
    emit(args, record, f"{args.out}: {what}; attempts {_listed(attempts)}")
    return 0


def _listed(values: dict[str, float] | dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Give a file that takes the place of `path` when all went well, and leaves no trace when not."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise UsageError(f"--out: cannot write {path}: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("simulate", total=total)
        yield lambda done: bar.update(task, completed=done)
