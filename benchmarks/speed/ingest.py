"""Whether the event store on PostgreSQL takes interactions at the same rate when it is full.

    python benchmarks/speed/ingest.py [--rows 500000,1000000,2000000] [--url postgresql+psycopg://…]

Without --url it starts a server of its own in a temporary folder: with little memory, so that indexes do not fit, and
without waiting for the disk at each commit, which would hide what they cost. Two million rows take 5 GB there, and some
ten minutes. One store is filled step by step, day by day; at each step batches go to it and to an empty one in turns,
and only the ratio of their rates is kept, as machine and disk change their speed within minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.results_file import Row, goal_text, stamp, write_rows
from benchmarks.speed.interactions import prompts
from benchmarks.speed.yardstick import yardstick_s
from router_ml.cli.output import table
from router_ml.schema import Interaction, RequestBody
from router_ml.store.engine import connect, parse_url
from router_ml.store.partitions import make_partitions
from router_ml.store.rows import StoreRow
from router_ml.store.sql import SqlStore

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results.json"
PROTOCOL = "postgres-ingest"
BATCH = 200
PER_DAY = 250_000
_FLAT = 0.8
_YARDSTICK_US = 17.0
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
# The index of ids alone is larger at a million rows.
_SMALL_MEMORY = {"fsync": "on", "synchronous_commit": "off", "shared_buffers": "64MB", "max_wal_size": "2GB"}
# Ids as the service gives them: the time, and then something random.
_FILL = """
WITH made AS (
  SELECT to_char(%(day)s::timestamp + n * interval '0.3 second', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"') AS ts,
    upper(lpad(to_hex((extract(epoch FROM %(day)s::timestamp) * 1000)::bigint + n * 300), 11, '0'))
      || upper(substr(md5(n::text || %(day)s), 1, 15)) AS id
  FROM generate_series(%(first)s::int, %(last)s::int) AS n
), known AS (INSERT INTO interaction_ids (id, ts) SELECT id, ts FROM made)
INSERT INTO interactions (id, ts, mode, policy_version, body, tenant)
SELECT id, ts, 'live', 'speed', %(body)s, 'acme' FROM made
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Time ingest at several fillings; print a table, write results.json.")
    parser.add_argument("--rows", default="500000,1000000,2000000", help="fillings, ascending (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=15, help="turns at each filling, at least 3 (default: 15)")
    parser.add_argument("--batches", type=int, default=20, help=f"batches of {BATCH} a turn (default: 20)")
    parser.add_argument("--url", help="an empty database of yours, as for [store] url (default: a server is started)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    if args.turns < 3:
        parser.error("--turns: a median needs at least 3")
    made = stamp()
    with _servers(args.url) as (empty_url, full_url), _store(empty_url) as empty, _store(full_url) as full:
        rows = _measured(empty, full, [int(part) for part in args.rows.split(",")], args.turns, args.batches)
    cells = [(row.metric, f"{row.value:,.3g}", row.must, goal_text(row) or None) for row in rows]
    print(f"{made.machine}; {made.date}; {made.commit}\n\n{table(('figure', 'value', 'must', ''), cells)}")
    write_rows(args.out, rows, made, protocols={PROTOCOL})
    return 0


def _measured(empty: SqlStore, full: SqlStore, fillings: Sequence[int], turns: int, batches: int) -> list[Row]:
    source = _batches()
    found, filled = [], 0
    for filling in (0, *fillings):
        started = time.perf_counter()
        _fill(full, filled, filling)
        filled = filling
        _say(f"{filling:,} rows; filling took {time.perf_counter() - started:.0f} s")
        for store in (empty, full):
            _forget(store)
        taken = np.array([_turn(empty, full, source, batches) for _ in range(turns + 1)][1:])
        ratio = taken[:, 0] / taken[:, 1]
        rate = BATCH * batches / taken[:, 1] * (taken[:, 2] * 1e6 / _YARDSTICK_US)
        must = _FLAT if filling == fillings[-1] else None
        found += [
            _row(f"rate at {filling:,} rows / empty store", ratio, must),
            _row(f"interactions per second at {filling:,} rows", rate, None),
        ]
    return found


def _turn(empty: SqlStore, full: SqlStore, source: Iterator[list[StoreRow]], batches: int) -> tuple[float, ...]:
    given = [[next(source) for _ in range(batches)] for _ in range(2)]
    seconds, stores = [0.0, 0.0], (empty, full)
    for n, pair in enumerate(zip(*given, strict=True)):
        # Now one goes first, now the other: what one leaves to be written holds up the next.
        for which in (n % 2, 1 - n % 2):
            started = time.perf_counter()
            stores[which].append_rows(pair[which])
            seconds[which] += time.perf_counter() - started
    return (*seconds, yardstick_s())


def _row(metric: str, values: Any, must: float | None) -> Row:
    low, high = (float(x) for x in np.quantile(values, (0.1, 0.9)))
    return Row(PROTOCOL, metric, float(np.median(values)), low, high, len(values), must)


def _batches() -> Iterator[list[StoreRow]]:
    # Today's rows, with ids that come in order and prompts of 200 tokens.
    texts, _ = prompts(2_000, np.random.default_rng(11))
    draw = np.random.default_rng(13)
    n = 0
    while True:
        batch = []
        for _ in range(BATCH):
            ts, n = NOW + timedelta(milliseconds=20 * n), n + 1
            id_ = f"{int(ts.timestamp() * 1e3):011X}{draw.integers(16**15):015X}"
            request = RequestBody(messages=({"role": "user", "content": texts[n % len(texts)]},))
            body = Interaction(id=id_, ts=ts, request=request).to_json()
            batch.append(StoreRow.of(id_, ts, body, mode="live", policy_version="speed", tenant="acme"))
        yield batch


def _fill(store: SqlStore, first: int, last: int) -> None:
    # The days before today, so that a full store has many partitions. By hand: append_rows would take an hour.
    body = next(_batches())[0].body
    for start in range(first, last, PER_DAY):
        day = (NOW - timedelta(days=1 + start // PER_DAY)).date().isoformat()
        here = {"day": day, "first": start % PER_DAY, "last": min(PER_DAY, last - start + start % PER_DAY) - 1}
        with store._writer.begin() as connection:
            make_partitions(connection, [day])
            connection.exec_driver_sql(_FILL, {**here, "body": body})


def _forget(store: SqlStore) -> None:
    # What filling has left to do is done before the clock runs.
    with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
        connection.exec_driver_sql("CHECKPOINT")


@contextmanager
def _store(url: str) -> Iterator[SqlStore]:
    with SqlStore(connect(parse_url(url)), url, clock=lambda: NOW) as store:
        store.upgrade()
        yield store


@contextmanager
def _servers(url: str | None) -> Iterator[tuple[str, str]]:
    if url is not None:
        # Two schemas of one database.
        pair = [
            f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}" for name in ("store_empty", "store_full")
        ]
        engine = connect(parse_url(url))
        with engine.begin() as connection:
            for name in ("store_empty", "store_full"):
                connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        engine.dispose()
        yield pair[0], pair[1]
        return
    # The tests know how to start one from a package.
    spec = importlib.util.spec_from_file_location("postgres_of_tests", ROOT / "tests" / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    folder = Path(tempfile.mkdtemp(prefix="router-ml-pg-"))
    server = module.Postgres(folder, settings=_SMALL_MEMORY)
    try:
        server.create().start()
        yield server.database(), server.database()
    finally:
        server.stop()
        shutil.rmtree(folder)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
