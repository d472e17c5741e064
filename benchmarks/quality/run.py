"""How good the product is on real outcomes of real models: every protocol, one command.

    ROUTER_ML_OUTCOMES=FOLDER python benchmarks/quality/run.py

Prints a table per protocol and one of all goals, and puts the figures in benchmarks/quality/results.json. Half an hour
on two cores. Without the folder of outcome tables there is nothing to measure: it says so and succeeds. A goal that is
missed is shown as missed and is no error; a protocol that cannot run is one.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.result import Result
from benchmarks.quality.summary import summary
from benchmarks.results_file import stamp, write_rows
from router_ml.errors import RouterError

ENVIRONMENT = "ROUTER_ML_OUTCOMES"
RESULTS = Path(__file__).resolve().parent / "results.json"
DRAWS = 1000

# One target may own several protocols and is run once: `run(folder, *, draws) -> Result`.
PROTOCOLS: Mapping[str, str] = {
    "A": "benchmarks.quality.pairs:run_a",
    "A2": "benchmarks.quality.pairs:run_a2",
    "B": "benchmarks.quality.censored:run",
    "C": "benchmarks.quality.censored:run",
    "D": "benchmarks.quality.cascades:run",
    "E": "benchmarks.quality.cascades:run",
    "F": "benchmarks.quality.cascades:run",
    "HB": "benchmarks.quality.cascades:run",
    "G": "benchmarks.quality.three_tiers:run_g",
    "G2": "benchmarks.quality.three_tiers:run_g2",
    "H": "benchmarks.quality.cascades:run",
    "I": "benchmarks.quality.certificates:run",
    "J": "benchmarks.quality.offpolicy:run",
    "K": "benchmarks.quality.controls:run",
    "L": "benchmarks.quality.onboarding:run",
    "M": "benchmarks.quality.cold_start:run",
    "N": "benchmarks.quality.loop:run",
    "steering": "benchmarks.quality.steering:run",
}
# Longest first, or the last one leaves a core idle. What is not listed is short.
LONGEST_FIRST = ("loop", "cascades", "certificates", "censored", "pairs", "onboarding")


def main(argv: Sequence[str] | None = None) -> int:
    args = _arguments(argv)
    given = os.environ.get(ENVIRONMENT)
    folder = args.outcomes or (Path(given) if given else None)
    if folder is None:
        _say(f"nothing to measure: {ENVIRONMENT} is not set to the folder of the outcome tables")
        return 0
    started = time.monotonic()
    made = stamp()
    print(f"{made.machine}; {made.date}; {made.commit}", flush=True)
    results: list[Result] = []
    errors: dict[str, BaseException] = {}
    for target, found, seconds in outcomes_of(targets(args.protocol), folder, draws=args.draws, workers=args.workers):
        if isinstance(found, BaseException):
            errors[target] = found
            _say(f"error: {target}: {_reason(found)}")
            continue
        print(f"\n{found.text}\n({seconds:.0f} s)", flush=True)
        write_rows(args.out, found.rows, made, protocols=found.protocols)
        results.append(found)
    print(f"\n{summary(results, list(PROTOCOLS))}")
    for target, error in errors.items():
        print(f"not measured: {', '.join(owned(target))}: {_reason(error)}")
    print(f"{time.monotonic() - started:.0f} s in all, {args.workers} workers")
    return 1 if errors else 0


def targets(names: Sequence[str] | None) -> list[str]:
    """Return the targets of some protocols, None meaning all; each once, longest first."""
    wanted = dict.fromkeys(PROTOCOLS[name] for name in names or PROTOCOLS)
    return sorted(wanted, key=_place)


def owned(target: str) -> list[str]:
    """Return the protocols of a target."""
    return [name for name, one in PROTOCOLS.items() if one == target]


def outcomes_of(
    wanted: Sequence[str], folder: Path, *, draws: int, workers: int
) -> Iterator[tuple[str, Result | BaseException, float]]:
    """Run targets in processes of their own; yield each with its result or error and its seconds, as they finish."""
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1) as pool:
        running = {pool.submit(_timed, target, folder, draws): target for target in wanted}
        for future in as_completed(running):
            error = future.exception()
            if error is not None:
                yield running[future], error, 0.0
            else:
                yield running[future], *future.result()


def _timed(target: str, folder: Path, draws: int) -> tuple[Result, float]:
    started = time.monotonic()
    module, _, name = target.partition(":")
    found = getattr(importlib.import_module(module), name)(folder, draws=draws)
    if not isinstance(found, Result) or set(found.protocols) != set(owned(target)):
        raise TypeError(f"{target} has to return the Result of {', '.join(owned(target))}, not {found!r:.80}")
    return found, time.monotonic() - started


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure the product on real outcome tables; print a table per protocol and write results.json."
    )
    parser.add_argument("--outcomes", type=Path, help=f"folder of the outcome tables (default: ${ENVIRONMENT})")
    parser.add_argument(
        "--protocol",
        action="append",
        choices=list(PROTOCOLS),
        help="only this one, and what is measured along with it; can be given several times",
    )
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"bootstrap draws (default: {DRAWS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    parser.add_argument("--workers", type=int, default=2, help="processes, one core each (default: 2)")
    return parser.parse_args(argv)


def _place(target: str) -> int:
    module = target.partition(":")[0].rpartition(".")[2]
    return LONGEST_FIRST.index(module) if module in LONGEST_FIRST else len(LONGEST_FIRST)


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, RouterError) else f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
