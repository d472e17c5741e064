"""What routing costs: a decision in process, over HTTP, inside the whole proxy, and the footprint of the service.

    python benchmarks/speed/run.py

Prints a table and puts its figures in benchmarks/speed/results.json. Takes about six minutes. Nothing else should run
on the machine meanwhile: ratios bear a little of it, milliseconds do not. LiteLLM is measured beside it when its
command is named by --litellm, or found on the path.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results_file import Row, goal_text, stamp, write_rows
from benchmarks.speed import footprint, in_process, over_http, proxying
from benchmarks.speed.servers import CLIENT_CORE, SERVER_CORE, pinned
from router_ml.bundle import default_bundle_path, load_bundle
from router_ml.cli.output import table
from router_ml.errors import BundleError

RESULTS = Path(__file__).resolve().parent / "results.json"
PARTS = ("in-process", "http", "proxy", "footprint")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time routing; print a table and write results.json.")
    parser.add_argument("--rounds", type=int, default=5, help="rounds over the servers, at least 3 (default: 5)")
    parser.add_argument("--seconds", type=float, default=1.2, help="seconds of load a turn (default: 1.2)")
    parser.add_argument("--part", choices=PARTS, action="append", help="what to measure (default: all of it)")
    parser.add_argument("--litellm", type=Path, help="LiteLLM's command (default: the one on the path, if any)")
    parser.add_argument("--no-install", action="store_true", help="leave out the size of an installation")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    if args.rounds < 3:
        parser.error("--rounds: a median needs at least 3")
    made = stamp()
    if not (pinned(SERVER_CORE) and pinned(CLIENT_CORE)):
        _say("taskset or a second core is missing: server and client share their cores")
    with _bundle() as bundle:
        rows = [row for part in args.part or PARTS for row in _measured(part, bundle, args)]
    print(f"{made.machine}; {made.date}; {made.commit}\n\n{_table(rows)}")
    write_rows(args.out, rows, made, protocols={row.protocol for row in rows})
    return 0


def _measured(part: str, bundle: Path, args: argparse.Namespace) -> list[Row]:
    _say(f"measuring: {part}")
    how = {"rounds": args.rounds, "seconds": args.seconds, "say": _say}
    found = args.litellm or shutil.which("litellm")
    measures: dict[str, Callable[[], list[Row]]] = {
        "in-process": lambda: in_process.measured(bundle),
        "http": lambda: over_http.measured(bundle, **how),
        "proxy": lambda: proxying.measured(bundle, **how, litellm=Path(found) if found else None),
        "footprint": lambda: footprint.measured(bundle, **how, install=not args.no_install),
    }
    return measures[part]()


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
