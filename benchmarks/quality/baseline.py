"""How good the learners are from the prompt alone, on real outcomes of real models, beside what needs no learning.

    ROUTER_ML_OUTCOMES=FOLDER python benchmarks/quality/baseline.py

Prints one table per protocol and puts its figures in benchmarks/quality/results.json. Takes about five minutes on one
core. Without the folder of outcome tables there is nothing to measure: it says so and succeeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.quality.contenders import CHOSEN, LENGTH, RANDOM, Scores, score
from benchmarks.quality.figures import APGR, CS97, DRAWS, figure, figures, gain, panels, random_saving, reference
from benchmarks.quality.protocols import PROTOCOLS, Protocol, read, splits
from benchmarks.quality.tables import Result, rows_of, text_of
from benchmarks.results_file import stamp, write_rows
from router_ml.errors import RouterError
from router_ml_training.evaluation.metrics import Figure

ENVIRONMENT = "ROUTER_ML_OUTCOMES"
RESULTS = Path(__file__).resolve().parent / "results.json"


def main(argv: Sequence[str] | None = None) -> int:
    names = [protocol.name for protocol in PROTOCOLS]
    parser = argparse.ArgumentParser(
        description="Measure the learners on real outcome tables; print a table per protocol and write results.json."
    )
    parser.add_argument("--outcomes", type=Path, help=f"folder of the outcome tables (default: ${ENVIRONMENT})")
    parser.add_argument("--protocol", action="append", choices=names, help="only this one; can be given several times")
    parser.add_argument("--draws", type=int, default=DRAWS, help=f"bootstrap draws (default: {DRAWS})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    given = os.environ.get(ENVIRONMENT)
    folder = args.outcomes or (Path(given) if given else None)
    if folder is None:
        _say(f"nothing to measure: {ENVIRONMENT} is not set to the folder of the outcome tables")
        return 0
    made = stamp()
    print(f"{made.machine}; {made.date}; {made.commit}")
    for protocol in PROTOCOLS:
        if args.protocol and protocol.name not in args.protocol:
            continue
        try:
            result = measure(protocol, folder, draws=args.draws)
        except RouterError as error:
            _say(f"error: {error}")
            return error.exit_code
        print(f"\n{text_of(result)}", flush=True)
        write_rows(args.out, rows_of(result), made, protocols=[protocol.name])
    return 0


def measure(protocol: Protocol, folder: Path, *, draws: int) -> Result:
    """Run one protocol.

    Raises:
        RouterError: When its table cannot be used.
    """
    started = time.monotonic()
    _say(f"{protocol.name}: reading {protocol.table}")
    table = read(protocol, folder)
    scores: list[Scores] = []
    sizes = []
    for number, split in enumerate(splits(protocol, table), start=1):
        scores.append(score(table.dataset, split))
        sizes.append(len(split.train))
        _say(f"{protocol.name}: split {number} fitted, {time.monotonic() - started:.0f} s")
    tests = panels(table.dataset, scores, protocol.by)
    drawn = figures(table.dataset, tests, draws=draws)
    routers = dict.fromkeys(router for router, _ in drawn)
    by_router = {router: {metric: figure(drawn[router, metric]) for metric in (APGR, CS97)} for router in routers}
    # A coin's curve is the chord in expectation, so its figures need no draw.
    by_router[RANDOM] = {APGR: Figure(0.5), CS97: Figure(random_saving(tests))}
    return Result(
        protocol=protocol,
        n_train=round(np.mean(sizes)),
        n_test=round(np.mean([panel.outcomes.n for panel in tests])),
        facts=reference(tests),
        by_router=by_router,
        gain=gain(drawn[CHOSEN, APGR], drawn[LENGTH, APGR]),
        choices=[one.chosen for one in scores],
    )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
