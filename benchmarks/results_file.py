"""The file that every benchmark writes: a list of figures, of which a run replaces only its own.

A figure belongs to a protocol ("A", "route-http"), and a protocol to one benchmark. A figure may have a goal: a `must`,
which is missed or kept, and an `aim` beyond it. Times are stated as ratios wherever the machine would decide them.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

__all__ = ["Row", "Stamp", "goal_text", "missed", "read_rows", "stamp", "write_rows"]

ROOT = Path(__file__).resolve().parents[1]
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, with its interval (or the range of its rounds), its sample size and its goal; None where unknown."""

    protocol: str
    metric: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    must: float | None = None
    aim: float | None = None
    better: Literal["higher", "lower"] = "higher"


@dataclass(frozen=True, slots=True)
class Stamp:
    """Where, when and on which code a figure was measured."""

    machine: str
    date: str
    commit: str


_KEYS = tuple(field.name for kind in (Row, Stamp) for field in fields(kind))


def stamp() -> Stamp:
    """Return the stamp of this machine, this moment and this checkout ("+" marks uncommitted changes of the code)."""
    commit = _git("rev-parse", "--short", "HEAD") or "unknown"
    code = ("router_ml", "training", "serving", "benchmarks/*.py")
    changed = "+" if _git("status", "--porcelain", "--", *code) else ""
    python = ".".join(platform.python_version_tuple()[:2])
    machine = f"{os.cpu_count()} cores, {_cpu_model()}, Python {python}"
    return Stamp(machine, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), commit + changed)


def missed(row: Row) -> bool | None:
    """Return whether a figure misses its must; None when it has none."""
    if row.must is None:
        return None
    if row.value is None:
        return True
    return row.value < row.must if row.better == "higher" else row.value > row.must


def goal_text(row: Row) -> str:
    """Return how a figure stands to its goal, in a word or two; empty without a goal."""
    verdict = missed(row)
    if verdict is None:
        return ""
    if verdict:
        return "missed"
    reached = row.aim is not None and missed(Row(**{**asdict(row), "must": row.aim})) is False
    return "aim reached" if reached else "must kept"


def write_rows(path: Path, rows: Sequence[Row], made: Stamp, *, protocols: Collection[str]) -> None:
    """Put the figures of one run in the file, in place of all that it held of the same protocols.

    Args:
        path: The file; made when it is not there, and replaced whole or not at all.
        rows: Figures of these protocols only, no metric twice.
        made: Where, when and on which code.
        protocols: The protocols that this run owns; figures of all others stay as they are.

    Raises:
        ValueError: When a row belongs to another protocol, appears twice or holds an infinite number, or when the file
            is not such a list.
    """
    _check(rows, protocols)
    kept = [record for record in read_rows(path) if record["protocol"] not in protocols]
    new = [{**{key: _rounded(value) for key, value in asdict(row).items()}, **asdict(made)} for row in rows]
    records = sorted([*kept, *new], key=lambda record: str(record["protocol"]))
    lines = ",\n".join(f"  {json.dumps(record, ensure_ascii=False)}" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(f"[\n{lines}\n]\n" if records else "[]\n", encoding="utf-8")
    part.replace(path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the figures of a file, none when it is not there.

    Raises:
        ValueError: When it is not a list of figures.
    """
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, list) or not all(isinstance(one, Mapping) and set(one) == set(_KEYS) for one in found):
        raise ValueError(f"{path}: not a list of figures with the keys {', '.join(_KEYS)}; move it away and run again")
    return [dict(one) for one in found]


def _check(rows: Sequence[Row], protocols: Collection[str]) -> None:
    seen: set[tuple[str, str]] = set()
    for row in rows:
        name = f"{row.protocol}: {row.metric}"
        if row.protocol not in protocols:
            raise ValueError(f"{name}: this run owns {', '.join(sorted(protocols))}")
        if (row.protocol, row.metric) in seen:
            raise ValueError(f"{name}: written twice")
        seen.add((row.protocol, row.metric))
        if any(x is not None and not math.isfinite(x) for x in (row.value, row.low, row.high, row.must, row.aim)):
            raise ValueError(f"{name}: not finite: {row}")


def _rounded(value: Any) -> Any:  # Any: a field of a row
    return round(value, _DIGITS) if isinstance(value, float) else value


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
