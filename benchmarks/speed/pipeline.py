"""What the retraining pipeline costs: from the event store to a gated bundle, the first time and a day later.

    python benchmarks/speed/pipeline.py

Fills a SQLite store with 1,000,000 made-up interactions, reads it back as polars frames, retrains from it, adds 20,000
interactions and retrains again, each retraining in a process of its own on two cores. The figures go into
benchmarks/speed/results.json, scaled to a machine on which one yardstick takes 12 us, the yardstick being read beside
every step. Takes half an hour and 10 GB of temporary space; nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.results_file import Row, stamp, write_rows
from benchmarks.speed.interactions import lines
from benchmarks.speed.train import REFERENCE_US, RESULTS, Ran, print_table, run_command, say, write_config
from benchmarks.speed.yardstick import yardstick_s
from router_ml.schema import parse_interaction
from router_ml.store import StoreRow, open_store, row_of
from router_ml_training.executor import LocalExecutor
from router_ml_training.frames_of_store import read_frames

SIZE, MORE = 1_000_000, 20_000
# Interactions per second, minutes, gigabytes, and the share of a full retraining that an incremental one may take.
_INGEST, _READ, _MINUTES, _GIGABYTES, _SHARE = 20_000.0, 100_000.0, 20.0, 6.0, 0.2
_BATCH, _CHUNK = 1_000, 5_000


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast rows went by: how many, in how many seconds, and the yardstick beside them in microseconds."""

    n: int
    seconds: float
    yardstick_us: float

    @property
    def per_s(self) -> float:
        """Rows per second of the machine that the goals are stated for."""
        return self.n / self.seconds * self.yardstick_us / REFERENCE_US


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Time the event store and `router-ml retrain`; print a table and write results.json."
    )
    parser.add_argument("--size", type=int, default=SIZE, help="interactions in the store (default: %(default)s)")
    parser.add_argument("--more", type=int, default=MORE, help="interactions that come later (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="where store and bundles go (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    if args.size < 1 or args.more < 1:
        parser.error("--size, --more: at least 1")
    made = stamp()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        url = f"sqlite:///{folder}/events.db"
        say(f"{args.size:,} interactions into the store")
        ingest = fill(url, 0, args.size, rng)
        say("reading them back")
        read = read_back(url)
        home = Path(folder) / "home"
        write_config(home)
        words = ["retrain", "--store", url, "--no-mlflow"]
        say("retraining")
        full = run_command(words, home)
        say(f"{args.more:,} interactions more, after {full.wall_s:.0f} s")
        fill(url, args.size, args.more, rng)
        later = run_command(words, home)
    rows = rows_of(args.size, ingest, read, full, later)
    print_table(made, rows)
    write_rows(args.out, rows, made, protocols={row.protocol for row in rows})
    return 0


def fill(url: str, first: int, n: int, rng: np.random.Generator) -> Rate:
    """Write n interactions into a store, in batches; only the writing is timed."""
    seconds, readings = 0.0, []
    with open_store(url) as store:
        for start in range(first, first + n, _CHUNK):
            rows = [row_of(parse_interaction(line)) for line in lines(start, min(_CHUNK, first + n - start), rng)]
            readings.append(yardstick_s())
            seconds += _timed(lambda rows=rows: _append(store.append_rows, rows))  # type: ignore[misc]
    return Rate(n, seconds, float(np.median(readings)) * 1e6)


def read_back(url: str) -> Rate:
    """Read a whole store as frames, in two processes that are running already; one pass is no measurement."""
    with LocalExecutor(2) as executor:
        _ = list(executor.map(abs, [1, 2]))
        n = seconds = 0.0
        readings = []
        for frame in read_frames(url, executor=executor):
            n += frame.height  # warms the processes up
        for _turn in range(3):
            readings.append(yardstick_s())
            began = time.perf_counter()
            n = sum(frame.height for frame in read_frames(url, executor=executor))
            seconds += time.perf_counter() - began
            readings.append(yardstick_s())
    return Rate(3 * int(n), seconds, float(np.median(readings)) * 1e6)


def rows_of(n: int, ingest: Rate, read: Rate, full: Ran, later: Ran) -> list[Row]:
    """Return the figures of one run; only those of the full size have goals."""
    protocol, is_full = f"pipeline-{n}", n == SIZE

    def row(metric: str, value: float, must: float | None = None, *, more_is_better: bool = False) -> Row:
        better = "higher" if more_is_better else "lower"
        return Row(protocol, metric, value, None, None, n, must if is_full else None, better=better)

    return [
        row("interactions into the store per second", ingest.per_s, _INGEST, more_is_better=True),
        row("interactions back as frames per second", read.per_s, _READ, more_is_better=True),
        row("store to gated bundle, minutes", full.minutes, _MINUTES),
        row("peak memory, GB", full.peak_gb, _GIGABYTES),
        row("store to gated bundle, seconds as measured", full.wall_s),
        row("retraining with new rows, minutes", later.minutes),
        row("retraining with new rows, share of a full one", later.minutes / full.minutes, _SHARE),
        row("one yardstick, us", full.yardstick_us),
    ]


def _append(append: Callable[[Sequence[StoreRow]], None], rows: Sequence[StoreRow]) -> None:
    for start in range(0, len(rows), _BATCH):
        append(rows[start : start + _BATCH])


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    raise SystemExit(main())
