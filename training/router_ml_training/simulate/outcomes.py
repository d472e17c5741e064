"""Full-information outcomes: what every tier answers, costs and is worth on every prompt, as aligned arrays."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from router_ml.errors import DataError, UsageError
from router_ml.registry import did_you_mean
from router_ml.schema import Request

__all__ = ["START", "OutcomeTable", "load_outcomes", "outcome_table", "parse_tiers"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

# Tables without times get one request a second from here; only the order means something.
START = datetime(2024, 1, 1, tzinfo=UTC)
_NEEDED = ("prompt_id", "model", "quality", "cost_usd", "input_tokens", "output_tokens")


@dataclass(frozen=True, eq=False)
class OutcomeTable:
    """Known outcomes of n prompts under K tiers, sorted by prompt id; tiers in order of mean cost, cheapest first.

    Args:
        frame: n * K rows, the K rows of a prompt together and in tier order.
        tiers: Names of the tiers, (K,).
        models: The model behind each tier, (K,).
        task_as_feature: Give requests the column `task` as their feature where the table names no feature.
    """

    frame: pl.DataFrame
    tiers: tuple[str, ...]
    models: tuple[str, ...]
    task_as_feature: bool = False

    def __len__(self) -> int:
        return self.frame.height // len(self.tiers)

    @cached_property
    def quality(self) -> F64:
        """Quality in [0, 1], shape (n, K). Where a call failed: what the answer would have been worth."""
        return self._cells("quality")

    @cached_property
    def cost_usd(self) -> F64:
        """Cost of one call in USD, shape (n, K)."""
        return self._cells("cost_usd")

    @cached_property
    def input_tokens(self) -> I64:
        """Prompt tokens as each model counts them, shape (n, K)."""
        return self._cells("input_tokens").astype(np.int64)

    @cached_property
    def output_tokens(self) -> I64:
        """Answer tokens, shape (n, K)."""
        return self._cells("output_tokens").astype(np.int64)

    @cached_property
    def responses(self) -> NDArray[np.object_]:
        """Answer text, shape (n, K); None where the table does not hold it."""
        return self.cells("response")

    @cached_property
    def errors(self) -> NDArray[np.object_]:
        """Infrastructure error of each call, shape (n, K); None where there was none."""
        return self.cells("error")

    @cached_property
    def failed(self) -> NDArray[np.bool_]:
        """Whether the call ends in an infrastructure error, shape (n, K)."""
        return np.array([error is not None for error in self.errors.ravel()], np.bool_).reshape(self.errors.shape)

    @cached_property
    def prompt_ids(self) -> tuple[str, ...]:
        """Stable ids of the prompts, (n,)."""
        return tuple(self._prompts["prompt_id"].to_list())

    @cached_property
    def ts(self) -> tuple[datetime, ...]:
        """When each prompt was asked, (n,); one second apart where the table holds no times."""
        return tuple(t.replace(tzinfo=UTC) if t.tzinfo is None else t for t in self._prompts["ts"].to_list())

    @cached_property
    def requests(self) -> list[Request]:
        """The requests, (n,), built on first use."""
        names = ("messages", "prompt", "tools", "response_format", "max_tokens", "tenant", "use_case", "session_id")
        columns = {name: self._column(name) for name in (*names, "feature", "task")}
        return [_request({name: column[i] for name, column in columns.items()}, self) for i in range(len(self))]

    @cached_property
    def group(self) -> I64:
        """Prompts that are equal but for case and punctuation share a number, shape (n,)."""
        text = "prompt" if "prompt" in self._prompts.columns else "messages"
        normal = pl.col(text).str.to_lowercase().str.replace_all(r"[\W_]+", " ").str.strip_chars()
        numbers = self._prompts.select(normal.rank("dense") - 1).to_series()
        return numbers.to_numpy().astype(np.int64)

    @property
    def dated(self) -> bool:
        """Whether the times are the table's own."""
        return "ts_assigned" not in self._prompts.columns

    @property
    def simulated(self) -> bool:
        """Whether these outcomes were made up by the workload generator."""
        return "simulated" in self._prompts.columns and bool(self._prompts["simulated"].any())

    def cells(self, column: str) -> NDArray[np.object_]:
        """Return any column per prompt and tier, shape (n, K); None throughout when the table does not have it."""
        values = np.full(self.frame.height, None, np.object_)
        if column in self.frame.columns:
            values[:] = self.frame[column].to_list()
        return values.reshape(-1, len(self.tiers))

    def take(self, rows: Sequence[int] | I64) -> OutcomeTable:
        """Return the table of these prompts only, in this order."""
        k = len(self.tiers)
        index = (np.asarray(rows, np.int64)[:, None] * k + np.arange(k)).ravel()
        return OutcomeTable(self.frame[index], self.tiers, self.models, self.task_as_feature)

    def deduplicated(self) -> OutcomeTable:
        """Return the table with the first prompt of every group only."""
        return self.take(np.sort(np.unique(self.group, return_index=True)[1]))

    @cached_property
    def _prompts(self) -> pl.DataFrame:
        return self.frame.gather_every(len(self.tiers))

    def _column(self, name: str) -> list[Any]:
        return self._prompts[name].to_list() if name in self._prompts.columns else [None] * len(self)

    def _cells(self, name: str) -> F64:
        return self.frame[name].cast(pl.Float64).to_numpy().reshape(-1, len(self.tiers))


def load_outcomes(path: Path, tiers: Mapping[str, str] | None = None, *, task_as_feature: bool = False) -> OutcomeTable:
    """Read a Parquet table of outcomes, one row per (prompt_id, model).

    Args:
        path: The file.
        tiers: Tier name to model; None makes every model of the table a tier.
        task_as_feature: See `OutcomeTable`.

    Raises:
        DataError: When the file cannot be read as such a table; the message says what is wrong and where.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a Parquet table of outcomes")
    try:
        lazy = pl.scan_parquet(path)
        if tiers and "model" in lazy.collect_schema():
            _check_models(lazy.select("model").unique().collect()["model"].to_list(), tiers, str(path))
            lazy = lazy.filter(pl.col("model").is_in(list(tiers.values())))
        frame = lazy.collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: cannot be read as a Parquet table of outcomes: {error}") from error
    return outcome_table(frame, tiers, where=str(path), task_as_feature=task_as_feature)


def outcome_table(
    frame: pl.DataFrame,
    tiers: Mapping[str, str] | None = None,
    *,
    where: str = "outcomes",
    task_as_feature: bool = False,
) -> OutcomeTable:
    """Check a frame of outcomes and arrange it; arguments and errors as of `load_outcomes`."""
    _check_columns(frame, where)
    chosen = dict(tiers) if tiers else _every_model(frame["model"].drop_nulls().unique().sort().to_list())
    _check_models(frame["model"].unique().to_list(), chosen, where)
    rows = frame.filter(pl.col("model").is_in(list(chosen.values())))
    _check_cells(rows, chosen, where)
    cost = dict(rows.group_by("model").agg(pl.col("cost_usd").mean()).iter_rows())
    ordered = sorted(chosen, key=lambda tier: (cost[chosen[tier]], tier))
    position = {chosen[tier]: i for i, tier in enumerate(ordered)}
    order = pl.col("model").replace_strict(position, return_dtype=pl.Int64)
    arranged = rows.with_columns(_tier=order).sort("prompt_id", "_tier").drop("_tier")
    if "ts" not in arranged.columns:
        seconds = pl.int_range(pl.len()) // len(ordered)
        # Said in the table itself, so that whoever reads it does not split by times that mean nothing.
        arranged = arranged.with_columns(ts=pl.lit(START) + pl.duration(seconds=seconds), ts_assigned=pl.lit(True))
    return OutcomeTable(arranged, tuple(ordered), tuple(chosen[tier] for tier in ordered), task_as_feature)


def parse_tiers(text: str) -> dict[str, str]:
    """Read "small=MODEL,large=MODEL" as a mapping of tier name to model.

    Raises:
        UsageError: When it reads otherwise, or names a tier twice.
    """
    tiers: dict[str, str] = {}
    for part in text.split(","):
        name, equals, model = (piece.strip() for piece in part.partition("="))
        if not (name and equals and model):
            raise UsageError(f"--tiers: expected small=MODEL,large=MODEL, got '{part.strip()}' in '{text}'")
        if name in tiers:
            raise UsageError(f"--tiers: the tier '{name}' is given twice")
        tiers[name] = model
    return tiers


def _check_columns(frame: pl.DataFrame, where: str) -> None:
    missing = [name for name in _NEEDED if name not in frame.columns]
    if not {"prompt", "messages"} & set(frame.columns):
        missing.append("prompt (or messages)")
    if missing:
        raise DataError(
            f"{where}: not a table of outcomes: missing {', '.join(missing)}; it has {', '.join(frame.columns)}"
        )
    for name in _NEEDED[2:]:
        if not frame.schema[name].is_numeric():
            raise DataError(f"{where}: column {name} holds {frame.schema[name]}, expected numbers")
    if frame.height == 0:
        raise DataError(f"{where}: the table has no rows")


def _check_models(known: Sequence[str | None], tiers: Mapping[str, str], where: str) -> None:
    names = sorted(name for name in known if name is not None)
    for tier, model in tiers.items():
        if model not in names:
            hint = did_you_mean(model, names)
            raise DataError(f"{where}: tier '{tier}': no rows for model '{model}'{hint}; it has {', '.join(names)}")
    if len(set(tiers.values())) < max(len(tiers), 2):
        given = ", ".join(f"{tier}={model}" for tier, model in tiers.items())
        raise DataError(f"{where}: at least two tiers of different models are needed, got {given}")


def _check_cells(rows: pl.DataFrame, tiers: Mapping[str, str], where: str) -> None:
    counts = rows.group_by("prompt_id", "model").len().filter(pl.col("len") > 1).sort("prompt_id", "model")
    if counts.height:
        prompt, model, times = counts.row(0)
        raise DataError(f"{where}: prompt_id '{prompt}' has {times} rows for model '{model}', expected one")
    partial = rows.group_by("prompt_id").agg(pl.col("model")).filter(pl.col("model").list.len() < len(tiers))
    if partial.height:
        prompt, models = partial.sort("prompt_id").row(0)
        absent = ", ".join(sorted(set(tiers.values()) - set(models)))
        raise DataError(
            f"{where}: {partial.height} prompts lack the outcome of a tier (first: prompt_id '{prompt}' has no row for "
            f"{absent}); leave such prompts out"
        )
    for name in _NEEDED[2:]:
        value = pl.col(name).cast(pl.Float64)
        good = value.is_finite() & (value >= 0.0) & (value <= (1.0 if name == "quality" else np.inf))
        bad = rows.filter(~good.fill_null(False))
        if bad.height:
            row = bad.sort("prompt_id", "model").row(0, named=True)
            raise DataError(
                f"{where}: {name} is {row[name]} for prompt_id '{row['prompt_id']}', model '{row['model']}' "
                f"({bad.height} such rows); expected {'0 to 1' if name == 'quality' else 'a number from 0 up'}"
            )


def _every_model(models: Sequence[str]) -> dict[str, str]:
    # Tier names are plain; "org/model" becomes "model" where that is unambiguous.
    short = [re.sub(r"[^A-Za-z0-9._-]+", "-", model.rsplit("/", 1)[-1]) for model in models]
    whole = [re.sub(r"[^A-Za-z0-9._-]+", "-", model) for model in models]
    names = short if len(set(short)) == len(models) else whole
    return dict(zip(names, models, strict=True))


def _request(row: Mapping[str, Any], table: OutcomeTable) -> Request:
    messages = row["messages"]
    feature = row["feature"] or (row["task"] if table.task_as_feature else None)
    return Request(
        messages=[{"role": "user", "content": row["prompt"]}] if messages is None else _decoded(messages),
        tools=_decoded(row["tools"]),
        response_format=_decoded(row["response_format"]),
        max_tokens=row["max_tokens"],
        tenant=row["tenant"],
        feature=feature,
        use_case=row["use_case"],
        session_id=row["session_id"],
    )


def _decoded(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value
