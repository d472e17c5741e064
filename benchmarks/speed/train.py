"""What training costs: from a log file to a bundle on the shelf by `router-ml train`, in minutes and gigabytes.

    python benchmarks/speed/train.py

Writes logs of 10,000, 100,000 and 1,000,000 made-up interactions with about 200 tokens of new text each, trains on each
in a process of its own on two cores, and puts the figures in benchmarks/speed/results.json. Times are scaled to a
machine on which one yardstick takes 12 us, the yardstick being read beside every run. Takes half an hour and 3 GB of
temporary space; nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from benchmarks.results_file import Row, Stamp, goal_text, stamp, write_rows
from benchmarks.speed.interactions import TIERS, prompts, write_log
from benchmarks.speed.servers import pinned
from benchmarks.speed.yardstick import measure, yardstick_s
from router_ml.cli.output import table
from router_ml.features import featurize
from router_ml.schema import Request

RESULTS = Path(__file__).resolve().parent / "results.json"
SIZES = (10_000, 100_000, 1_000_000)
FEATURES, GROWTH = "train-features", "train-growth"
# The yardstick of the machine that the goals are stated for.
REFERENCE_US = 12.0
_PROMPTS_PER_S = 10_000.0
# By number of interactions: minutes and gigabytes.
_GOALS = {1_000_000: (15.0, 6.0)}
_STEEPEST = 1.1
_BETWEEN_READINGS_S = 1.0
_TOML = """models_dir = {models}

[training]
num_threads = 2
"""
_TIER = """
[[tiers]]
name = "{name}"
model = "model-{name}"
input_usd_per_mtok = {input}
output_usd_per_mtok = {output}
"""
_PRICES = ((0.15, 0.6), (2.5, 10.0))


@dataclass(frozen=True, slots=True)
class Cost:
    """One run: its size, seconds on the clock and of all its threads, GB at its peak, the yardstick, what was kept.

    `n_fitted` are the rows that models were fitted on: of a long log, a sample.
    """

    n: int
    wall_s: float
    cpu_s: float
    peak_gb: float
    yardstick_us: float
    learner: str
    n_fitted: int

    @property
    def minutes(self) -> float:
        """Minutes on the clock of the machine that the goals are stated for."""
        return self.wall_s * REFERENCE_US / self.yardstick_us / 60


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Time `router-ml train` on logs of growing length; print a table and write results.json."
    )
    parser.add_argument(
        "--size", type=int, action="append", help="interactions; can be given several times (default: 10000 to 1000000)"
    )
    parser.add_argument("--folder", type=Path, help="where logs and bundles go (default: a temporary folder)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the figures go (default: beside this script)")
    args = parser.parse_args(argv)
    sizes = sorted(args.size or SIZES)
    if sizes[0] < 1:
        parser.error("--size: at least 1")
    made = stamp()
    say("featurising")
    rows = [_features_row()]
    costs = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for n in sizes:
            say(f"{n:,} interactions: writing the log")
            log = Path(folder) / f"log-{n}.jsonl"
            write_log(log, n, seed=0)
            say(f"{n:,} interactions: training on {log.stat().st_size / 1e6:,.0f} MB")
            costs.append(trained(log, n, Path(folder) / f"home-{n}"))
            say(f"{n:,} interactions: '{costs[-1].learner}' after {costs[-1].wall_s:.0f} s")
            log.unlink()
    rows += [row for cost in costs for row in rows_of(cost)] + growth_rows(costs)
    print_table(made, rows)
    write_rows(args.out, rows, made, protocols={row.protocol for row in rows})
    return 0


@dataclass(frozen=True, slots=True)
class Ran:
    """One command: what it printed, seconds on the clock and of all its threads, GB at its peak, the yardstick."""

    record: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_gb: float
    yardstick_us: float

    @property
    def minutes(self) -> float:
        """Minutes on the clock of the machine that the goals are stated for."""
        return self.wall_s * REFERENCE_US / self.yardstick_us / 60


def trained(log: Path, n: int, home: Path) -> Cost:
    """Run `router-ml train` on a log in a process of its own and return what it cost.

    Raises:
        RuntimeError: When it fails; with what it said.
    """
    write_config(home)
    ran = run_command(["train", str(log), "--no-mlflow"], home)
    record = ran.record
    return Cost(n, ran.wall_s, ran.cpu_s, ran.peak_gb, ran.yardstick_us, record["learner"], record["n_train"])


def write_config(home: Path) -> None:
    """Make a folder to work in, with a router.toml for the tiers of the logs."""
    home.mkdir()
    tiers = zip(TIERS, _PRICES, strict=True)
    text = [_TIER.format(name=name, input=price[0], output=price[1]) for name, price in tiers]
    config = _TOML.format(models=json.dumps(str(home / "models"))) + "".join(text)
    (home / "router.toml").write_text(config, encoding="utf-8")


def run_command(words: Sequence[str], home: Path) -> Ran:
    """Run `router-ml` on two cores, in a process of its own, and return what it cost.

    Args:
        words: The command and its arguments.
        home: Folder with a router.toml.

    Raises:
        RuntimeError: When it fails; with what it said.
    """
    command = [
        str(Path(sys.executable).with_name("router-ml")),
        *words,
        "--config",
        str(home / "router.toml"),
        "--json",
    ]
    said = home / "said.json"
    with said.open("w") as output, (home / "errors.txt").open("w") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [*pinned(0, 1), *command], stdout=output, stderr=errors, cwd=home, env=_environment()
        )
        readings, at_once = [], 0
        while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            readings.append(yardstick_s())
            at_once = max(at_once, _resident_bytes(process.pid))
            time.sleep(_BETWEEN_READINGS_S)
        wall_s = time.perf_counter() - started
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {(home / 'errors.txt').read_text(encoding='utf-8')}")
    return Ran(
        record=json.loads(said.read_text(encoding="utf-8")),
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_gb=max(usage.ru_maxrss * 1024, at_once) / 1e9,
        yardstick_us=float(np.median(readings)) * 1e6,
    )


def _resident_bytes(pid: int) -> int:
    """Return what a process and those it started have in memory together; pages that they share count for each."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = [
            line for task in Path(f"/proc/{pid}/task").iterdir() for line in (task / "children").read_text().split()
        ]
    except (OSError, IndexError):  # it has ended
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident_bytes(int(child)) for child in children)


def rows_of(cost: Cost) -> list[Row]:
    """Return the figures of one run; the scale of its minutes stands beside them."""
    minutes, gigabytes = _GOALS.get(cost.n, (None, None))
    protocol = f"train-{cost.n}"

    def row(metric: str, value: float, must: float | None = None) -> Row:
        return Row(protocol, metric, value, None, None, cost.n, must, better="lower")

    return [
        row("log to bundle, minutes", cost.minutes, minutes),
        row("peak memory, GB", cost.peak_gb, gigabytes),
        row("log to bundle, seconds as measured", cost.wall_s),
        row("processor seconds as measured", cost.cpu_s),
        row("one yardstick, us", cost.yardstick_us),
        row("rows that models are fitted on", cost.n_fitted),
    ]


def growth_rows(costs: Sequence[Cost]) -> list[Row]:
    """Return how steeply minutes grow from each size to the next: e in n^e; the last step has the goal."""
    rows = []
    for smaller, larger in itertools.pairwise(costs):
        exponent = math.log(larger.minutes / smaller.minutes) / math.log(larger.n / smaller.n)
        must = _STEEPEST if (smaller.n, larger.n) == SIZES[-2:] else None
        metric = f"exponent of growth, {smaller.n:,} to {larger.n:,}"
        rows.append(Row(GROWTH, metric, exponent, None, None, larger.n, must, better="lower"))
    return rows


def _features_row() -> Row:
    texts, _ = prompts(512, np.random.default_rng(1))
    requests = [Request(messages=[{"role": "user", "content": text}]) for text in texts]

    def work(i: int) -> dict[str, float]:
        started = time.perf_counter()
        featurize(requests[i % len(requests)])
        return {"features": time.perf_counter() - started}

    timing = measure(work, turns=30, calls=100)[0]["features"]
    per_s, low, high = (1e6 / (yardsticks * REFERENCE_US) for yardsticks in (timing.p50, timing.high, timing.low))
    return Row(FEATURES, "prompts per second and core", per_s, low, high, timing.n, _PROMPTS_PER_S)


def _environment() -> dict[str, str]:
    # Two cores are the premise of the goal, so no library takes more threads than that; and threads that wait for each
    # other sleep, or one that is held up by a passing process costs many times what it saves. OpenBLAS's cannot sleep.
    threads = {"OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    return {**os.environ, **threads, "OMP_WAIT_POLICY": "PASSIVE"}


def print_table(made: Stamp, rows: Sequence[Row]) -> None:
    """Print the figures of a run, with what must be reached."""
    cells = [(row.protocol, row.metric, _cell(row.value), _bound(row), goal_text(row) or None) for row in rows]
    print(f"{made.machine}; {made.date}; {made.commit}\n\n{table(('protocol', 'figure', 'value', 'must', ''), cells)}")


def _bound(row: Row) -> str | None:
    sign: Literal[">=", "<="] = ">=" if row.better == "higher" else "<="
    return None if row.must is None else f"{sign} {row.must:,g}"


def _cell(value: float | None) -> str | None:
    if value is None:
        return None
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def say(text: str) -> None:
    """Tell who waits what is being done."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
