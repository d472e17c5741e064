"""What a routing decision costs: in process, in yardsticks; over HTTP, beside an endpoint that does nothing.

    python benchmarks/speed/route.py

Prints a table and puts its figures in benchmarks/speed/results.json. Takes about a minute. Nothing else should run on
the machine meanwhile: ratios bear a little of it, milliseconds do not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results_file import Row, goal_text, stamp, write_rows
from benchmarks.speed import in_process, over_http
from benchmarks.speed.servers import CLIENT_CORE, SERVER_CORE, pinned
from router_ml.bundle import default_bundle_path, load_bundle
from router_ml.cli.output import table
from router_ml.errors import BundleError

RESULTS = Path(__file__).resolve().parent / "results.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Time a routing decision, in process and over HTTP; print a table and write results.json."
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds over both servers, at least 3 (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.2, help="seconds of load a turn (default: 1.2)")
    parser.add_argument("--part", choices=("all", "in-process", "http"), default="all", help="what to measure")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    if args.rounds < 3:
        parser.error("--rounds: a median needs at least 3")
    made = stamp()
    rows: list[Row] = []
    with _bundle() as bundle:
        if args.part != "http":
            _say("deciding in process")
            rows += in_process.measured(bundle)
        if args.part != "in-process":
            _say("deciding over HTTP")
            if not (pinned(SERVER_CORE) and pinned(CLIENT_CORE)):
                _say("taskset or a second core is missing: server and client share their cores")
            rows += over_http.measured(bundle, rounds=args.rounds, seconds=args.seconds, say=_say)
    print(f"{made.machine}; {made.date}; {made.commit}\n\n{_table(rows)}")
    write_rows(args.out, rows, made, protocols={row.protocol for row in rows})
    return 0


@contextmanager
def _bundle() -> Iterator[Path]:
    path = default_bundle_path()
    try:
        load_bundle(path)
    except BundleError as error:
        _say(f"training a small bundle, as the default one cannot be used: {error}")
    else:
        yield path
        return
    from benchmarks.speed.small_bundle import train

    with tempfile.TemporaryDirectory() as folder:
        yield train(Path(folder))


def _table(rows: Sequence[Row]) -> str:
    cells = [
        (row.protocol, row.metric, *map(_cell, (row.value, row.low, row.high, row.must, row.aim)), goal_text(row))
        for row in rows
    ]
    return table(("protocol", "figure", "value", "low", "high", "must", "aim", ""), cells)


def _cell(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
