"""`router-ml demo`: the whole cycle, on a simulated workload or on a table of real outcomes."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from router_ml.cli.arguments import whole_number
from router_ml.cli.output import emit
from router_ml.errors import UsageError
from router_ml_training.demo.story import DemoOptions, run_demo
from router_ml_training.simulate import POLICIES
from router_ml_training.simulate.outcomes import OutcomeTable, load_outcomes, outcome_table, parse_tiers
from router_ml_training.simulate.workload import generate

__all__ = ["add_arguments", "run"]

_LOGGED = ("outcomes", *POLICIES)
_FEWEST, _FEWEST_LIVE = 500, 20
# Boosted trees would be most of the demo's time and change none of its story.
_LEARNERS = ("constant", "length", "keywords", "linear")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("--outcomes", type=Path, metavar="FILE", help="a table of real outcomes instead of a workload")
    parser.add_argument("--tiers", help="with --outcomes: the model behind each tier, small=MODEL,large=MODEL")
    parser.add_argument(
        "--logged",
        choices=_LOGGED,
        help="how the past was logged (default: cascade; with --outcomes, 'outcomes': everything is known)",
    )
    parser.add_argument("--n", type=int, default=6000, help="requests of the simulated workload (default: %(default)s)")
    parser.add_argument("--live", type=int, default=400, help="requests sent to the service (default: %(default)s)")
    parser.add_argument("--quality", type=float, default=0.97, help="share of the best tier's quality to keep")
    parser.add_argument("--audit", type=float, default=0.1, help="share of the past on which every tier was run")
    parser.add_argument("--seed", type=whole_number, default=0, help="same seed, same demo (default: %(default)s)")
    parser.add_argument("--dir", type=Path, default=Path("demo-output"), help="where its files go; emptied first")


def run(args: argparse.Namespace) -> int:
    """Run the demo and print its table."""
    if bool(args.outcomes) != bool(args.tiers):
        raise UsageError("--outcomes and --tiers belong together: --outcomes FILE --tiers small=MODEL,large=MODEL")
    if not 0.0 < args.quality <= 1.0:
        raise UsageError(f"--quality: expected a share in (0, 1], got {args.quality:g}")
    if args.n < _FEWEST:
        raise UsageError(f"--n: at least {_FEWEST} requests are needed to show anything, got {args.n}")
    if not 0.0 <= args.audit <= 1.0:
        raise UsageError(f"--audit: expected a share from 0 to 1, got {args.audit:g}")
    if args.live < _FEWEST_LIVE:
        raise UsageError(f"--live: at least {_FEWEST_LIVE} requests are needed, got {args.live}")
    say = _narrator()
    if args.outcomes:
        tiers = parse_tiers(args.tiers)
        table = load_outcomes(args.outcomes, tiers)
        described = f"{args.outcomes.name}: {', '.join(f'{t} = {m}' for t, m in tiers.items())}"
    else:
        table = _workload(args.n, args.seed, say)
        described = f"simulated workload of {args.n:,} requests, seed {args.seed}"
    _empty(args.dir)
    say(f"{described}: {len(table):,} requests")
    options = DemoOptions(
        directory=args.dir,
        policy=args.logged or ("outcomes" if args.outcomes else "cascade"),
        quality=args.quality,
        n_live=args.live,
        audit_share=args.audit,
        learners=_LEARNERS,
        seed=args.seed,
    )
    result = run_demo(table, described, options, say)
    emit(args, result.record, f"\n{result.to_text()}")
    return 0


def _workload(n: int, seed: int, say: Callable[[str], None]) -> OutcomeTable:
    say(f"making up a workload of {n:,} requests (simulated; seed {seed})")
    return outcome_table(generate(n, rng=np.random.default_rng(seed)), {"small": "gpt-4o-mini", "large": "gpt-4o"})


def _narrator() -> Callable[[str], None]:
    """Tell the story on stderr, each line with its time: stdout is for the result."""
    started = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {text}\n")
        sys.stderr.flush()

    return say


def _empty(directory: Path) -> None:
    # Only what an earlier demo wrote is removed, never a folder that holds other things.
    marker = directory / ".router-ml-demo"
    if directory.exists() and any(directory.iterdir()) and not marker.exists():
        raise UsageError(f"--dir {directory}: is not empty and was not made by the demo; choose another folder")
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    marker.touch()
