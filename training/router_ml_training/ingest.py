"""The import: rows of any source -> one Parquet file, a reject file and a report; all of it, or nothing."""

from __future__ import annotations

import glob
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from router_ml.durable import replace_file
from router_ml.errors import DataError, UsageError
from router_ml.ladder import Ladder
from router_ml.schema import Attempt, Interaction
from router_ml_training.frames import write_parquet
from router_ml_training.quality import DataQuality, QualityCounter
from router_ml_training.sources import Reject, Source, SourceOptions

__all__ = ["MAX_REJECTS", "IngestReport", "ingest", "rejects_path", "report_path"]

MAX_REJECTS = 0.05
_PROGRESS_EVERY = 1000
_MOST_REASONS = 100


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of an import; `refused` says why nothing was written, and is None when something was."""

    out: str
    rejects: str
    n_read: int
    n_written: int
    n_rejected: int
    n_duplicates: int
    n_conflicting: int
    n_costs_filled: int
    reasons: dict[str, int]
    refused: str | None
    quality: DataQuality

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON can hold them."""
        names = [name for name in self.__slots__ if name != "quality"]
        return {**{name: getattr(self, name) for name in names}, "quality": self.quality.to_dict()}

    def to_text(self) -> str:
        """Return the report for a person, a few lines of plain text."""
        lines = [
            f"{self.n_written} of {self.n_read} rows imported into {self.out}",
            f"rejected      {self.n_rejected} (see {self.rejects})" if self.n_rejected else "rejected      0",
            *(f"              {count} x {reason}" for reason, count in list(self.reasons.items())[:5]),
            f"costs         {self.n_costs_filled} computed from tokens and the ladder's prices",
        ]
        return "\n".join([*lines, self.quality.to_text()])


def rejects_path(out: Path) -> Path:
    """Return where the rejected rows of an import go unless told otherwise."""
    return out.with_name(f"{out.stem}.rejects.jsonl")


def report_path(out: Path) -> Path:
    """Return where the report of an import goes."""
    return out.with_name(f"{out.stem}.report.json")


def ingest(
    source: Source,
    locations: Sequence[str],
    options: SourceOptions,
    *,
    out: Path,
    now: datetime,
    rejects: Path | None = None,
    max_rejects: float = MAX_REJECTS,
    progress: Callable[[int], None] = lambda n_read: None,
) -> IngestReport:
    """Read logs, keep every valid interaction once, and write them to one Parquet file.

    Missing costs are computed from tokens and the prices of `options.ladder`. When the import is refused, the reject
    file and the report are written all the same, and an earlier `out` stays; on any other failure nothing is written.

    Args:
        source: One of `SOURCES`.
        locations: What the source shall read, in this order; the first of two rows with one id is kept.
        options: What the source needs to know, and the ladder.
        out: The Parquet file to write; its report goes beside it, see `report_path`.
        now: What is later than this is reported as lying in the future.
        rejects: The reject file, JSON lines of {file, line, reason, raw}; default `rejects_path(out)`.
        max_rejects: Refuse when more than this share of the rows is rejected.
        progress: Called with the number of rows read, every thousand rows and at the end.

    Returns:
        The report.

    Raises:
        DataError: When a location cannot be read, no row is valid, or too many are rejected.
        UsageError: When a file cannot be written.
    """
    rejects = rejects or rejects_path(out)
    _check_paths(out, rejects, locations)
    run = _Run(source, locations, options, QualityCounter(now, options.adequate_bar), progress)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as cleanup:
            data, rejected = (_temporary(path, cleanup) for path in (out, rejects))
            with rejected.open("w", encoding="utf-8") as file:
                write_parquet(data, run.interactions(file))
            report = run.report(out, rejects, max_rejects)
            rejected.replace(rejects)
            replace_file(report_path(out), (json.dumps(report.to_dict(), indent=2) + "\n").encode())
            if report.refused is None:
                _sync(data)
                data.replace(out)
    except OSError as error:
        raise UsageError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from error
    if report.refused is not None:
        raise DataError(report.refused)
    return report


@dataclass(slots=True)
class _Run:
    source: Source
    locations: Sequence[str]
    options: SourceOptions
    quality: QualityCounter
    progress: Callable[[int], None]
    n_read: int = 0
    n_written: int = 0
    n_rejected: int = 0
    n_filled: int = 0
    n_duplicates: int = 0
    n_conflicting: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def interactions(self, rejects: TextIO) -> Iterator[Interaction]:
        seen = _Seen()
        for location in self.locations:
            for row in self.source(location, self.options):
                self.n_read += 1
                if self.n_read % _PROGRESS_EVERY == 0:
                    self.progress(self.n_read)
                if isinstance(row, Reject):
                    self._reject(row, rejects)
                elif (same := seen.add(row)) is not None:
                    self._repeated(row, location, rejects, same=same)
                else:
                    item = row if self.options.ladder is None else self._priced(row, self.options.ladder)
                    self.quality.add(item)
                    self.n_written += 1
                    yield item
        self.progress(self.n_read)

    def _reject(self, row: Reject, file: TextIO) -> None:
        self.n_rejected += 1
        # Without the value that was found, so that equal mistakes are counted together.
        reason = row.reason.partition(", got ")[0][:200]
        self.reasons[reason if reason in self.reasons or len(self.reasons) < _MOST_REASONS else "other reasons"] += 1
        _write_reject(row, file)

    def _repeated(self, row: Interaction, location: str, file: TextIO, *, same: bool) -> None:
        if same:
            self.n_duplicates += 1
            return
        self.n_conflicting += 1
        reason = f"id: '{row.id}' was there before with other content; the first was kept"
        _write_reject(Reject(None, reason, row.to_json()[:500], location.rpartition("@")[2]), file)

    def _priced(self, item: Interaction, ladder: Ladder) -> Interaction:
        if all(attempt.cost_usd is not None for attempt in item.attempts):
            return item
        attempts = tuple(_priced(attempt, ladder) for attempt in item.attempts)
        self.n_filled += sum(new is not old for new, old in zip(attempts, item.attempts, strict=True))
        return item.model_copy(update={"attempts": attempts})

    def report(self, out: Path, rejects: Path, max_rejects: float) -> IngestReport:
        return IngestReport(
            out=str(out),
            rejects=str(rejects),
            n_read=self.n_read,
            n_written=self.n_written,
            n_rejected=self.n_rejected,
            n_duplicates=self.n_duplicates,
            n_conflicting=self.n_conflicting,
            n_costs_filled=self.n_filled,
            reasons=dict(self.reasons.most_common()),
            refused=self._refusal(rejects, max_rejects),
            quality=self.quality.result(duplicates=self.n_duplicates, conflicting=self.n_conflicting),
        )

    def _refusal(self, rejects: Path, max_rejects: float) -> str | None:
        where = ", ".join(location.rpartition("@")[2] for location in self.locations)
        if self.n_read == 0:
            return f"{where}: the log is empty; nothing was imported"
        share = self.n_rejected / self.n_read
        if self.n_written and share <= max_rejects:
            return None
        reason, count = self.reasons.most_common(1)[0]
        limit = f"more than the {max_rejects:.0%} allowed" if self.n_written else "so none is valid"
        advice = "correct them, or allow more with --max-rejects" if self.n_written else "correct them"
        return (
            f"{where}: {self.n_rejected} of {self.n_read} rows cannot be read, {limit}; nothing was imported. "
            f"Most frequent ({count} x): {reason}. Every one of them is in {rejects}; {advice}"
        )


def _priced(attempt: Attempt, ladder: Ladder) -> Attempt:
    if attempt.cost_usd is not None or attempt.input_tokens is None or attempt.output_tokens is None:
        return attempt
    cost = ladder.tier(attempt.tier).cost_usd(attempt.input_tokens, attempt.output_tokens, attempt.cached_tokens)
    return attempt.model_copy(update={"cost_usd": cost})


def _write_reject(row: Reject, file: TextIO) -> None:
    record = {"file": row.file, "line": row.line, "reason": row.reason, "raw": row.raw}
    file.write(json.dumps(record, ensure_ascii=False) + "\n")


class _Seen:
    """The ids met so far and a digest of what they stood for: 16 bytes each once sorted away, never the rows."""

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._ids: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._contents: NDArray[np.uint64] = np.empty(0, np.uint64)

    def add(self, item: Interaction) -> bool | None:
        """Return None for a new id, else whether the content is the same as before."""
        key, content = _digest(item.id), _digest(item.to_json())
        known = self._recent.get(key)
        if known is None and len(self._ids):
            i = int(np.searchsorted(self._ids, np.uint64(key)))
            if i < len(self._ids) and self._ids[i] == key:
                known = int(self._contents[i])
        if known is not None:
            return known == content
        self._recent[key] = content
        # In proportion to what is there, so that all the sorting together stays linear in the log.
        if len(self._recent) > max(100_000, len(self._ids) // 4):
            self._sort_away()
        return None

    def _sort_away(self) -> None:
        n = len(self._recent)
        ids = np.concatenate([self._ids, np.fromiter(self._recent, np.uint64, n)])
        contents = np.concatenate([self._contents, np.fromiter(self._recent.values(), np.uint64, n)])
        order = np.argsort(ids, kind="stable")
        self._ids, self._contents = ids[order], contents[order]
        self._recent.clear()


def _digest(text: str) -> int:
    # Python's own hash of text: 64 bits, salted, good for one process, and several times faster than a digest.
    return hash(text) & 0xFFFF_FFFF_FFFF_FFFF


def _check_paths(out: Path, rejects: Path, locations: Sequence[str]) -> None:
    if out.suffix != ".parquet":
        raise UsageError(f"--out {out}: the log is written as Parquet; give it a name that ends in .parquet")
    for path in (out, rejects):
        for location in locations:
            inside = Path(location).is_dir() and path.resolve().is_relative_to(Path(location).resolve())
            matches = glob.glob(location, recursive=True)  # noqa: PTH207
            if inside or path.resolve() in {Path(match).resolve() for match in matches}:
                raise UsageError(
                    f"{path}: would be written among the files that are read ({location}); move it elsewhere"
                )
    if out.resolve() == rejects.resolve():
        raise UsageError(f"{out}: the log and its rejects cannot be one file; choose another name")


def _temporary(path: Path, cleanup: ExitStack) -> Path:
    # Beside its place, so that moving it there is one step.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    cleanup.callback(temporary.unlink, missing_ok=True)
    return temporary


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
