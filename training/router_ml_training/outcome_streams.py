"""Outcomes in the order they came, one number in [0, 1] per session or prompt and day: what alarms listen to.

Rows of one session or prompt are not independent, so each counts once a day, by its mean. Night and day bring other
requests, and a bettor who knows that wins every night though nothing has changed: within a day (UTC) outcomes are in
the order of their groups' hashes. Days that are over do not change any more, so that a stream that is read again is the
same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_ml_training.dataset import Dataset

__all__ = ["AUDITED", "CHOSEN", "Stream", "StreamKind", "audited_rows", "streams_of", "whole_days"]

F64: TypeAlias = NDArray[np.float64]

# The first two are of audits, a random sample of the traffic; the next two are of what a policy chose. The last is of
# the same prompts again and again, which no log of traffic has.
StreamKind: TypeAlias = Literal["quality", "answer_length", "escalation", "chosen_answer_length", "golden"]
AUDITED: tuple[StreamKind, ...] = ("quality", "answer_length")
CHOSEN: tuple[StreamKind, ...] = ("escalation", "chosen_answer_length")
_LENGTHS: frozenset[StreamKind] = frozenset({"answer_length", "chosen_answer_length"})
_DAY_S = 86_400.0
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Stream:
    """One kind of outcome of one tier: `ts` (n,) seconds since 1970, rising, and `values` (n,) in [0, 1].

    Which value belongs to which time is known to a day.

    `scale` is the median length in tokens where the values are lengths: a length t is t / (t + scale). Else None.
    """

    kind: StreamKind
    tier: str
    ts: F64
    values: F64
    scale: float | None = None


def audited_rows(dataset: Dataset) -> NDArray[np.bool_]:
    """Return the rows whose outcomes are a random sample, (n,): audits, and tables in which everything is known."""
    return np.asarray((dataset.action < 0) & (~np.isnan(dataset.share) | dataset.complete), np.bool_)


def streams_of(dataset: Dataset, scales: Mapping[StreamKind, Mapping[str, float]] | None = None) -> tuple[Stream, ...]:
    """Return every stream that a log has.

    Args:
        dataset: The log.
        scales: Median lengths in tokens by kind and tier, of the traffic it will be compared with; a length without one
            is measured in the median of this log.
    """
    audited, found = audited_rows(dataset), []
    escalated = np.asarray(dataset.escalated.any(axis=1), np.float64)
    for i, tier in enumerate(dataset.tiers):
        chosen = np.asarray(dataset.action == i, np.bool_)
        kinds: tuple[tuple[StreamKind, NDArray[np.bool_], F64], ...] = (
            ("quality", audited, dataset.quality[:, i]),
            ("answer_length", audited, dataset.output_tokens[:, i]),
            ("escalation", chosen, escalated),
            ("chosen_answer_length", chosen, dataset.output_tokens[:, i]),
        )
        for kind, rows, values in kinds:
            scale = (scales or {}).get(kind, {}).get(tier)
            stream = _stream(dataset, kind, tier, rows & np.isfinite(values), values, scale)
            found += [] if stream is None else [stream]
    return tuple(found)


def whole_days(ts: F64, since: datetime, until: datetime) -> NDArray[np.bool_]:
    """Return which times are of days (UTC) that are whole between two others, (n,); all where no day is.

    Half a day is all night, or all day, and says nothing about the mean of both.

    Args:
        ts: Times in seconds since 1970, (n,).
        since: Where the log begins.
        until: Where it ends.
    """
    first, last = np.ceil(since.timestamp() / _DAY_S), np.floor(until.timestamp() / _DAY_S)
    if first >= last:
        return np.ones(len(ts), np.bool_)
    return np.asarray((ts >= first * _DAY_S) & (ts < last * _DAY_S), np.bool_)


def _stream(
    dataset: Dataset,
    kind: StreamKind,
    tier: str,
    rows: NDArray[np.bool_],
    values: F64,
    scale: float | None,
) -> Stream | None:
    if not rows.any():
        return None
    taken = values[rows]
    if kind in _LENGTHS:
        scale = scale or max(float(np.median(taken)), 1.0)
        taken = taken / (taken + scale)
    ts, means = _daily(dataset.group[rows], dataset.ts[rows], np.clip(taken, 0.0, 1.0))
    return Stream(kind, tier, ts, means, scale)


def _daily(group: NDArray[np.int64], ts: F64, values: F64) -> tuple[F64, F64]:
    """Return when groups were first seen on a day, rising, and their means there, shuffled within the day."""
    # Groups are hashes: mixed with the day they still are, and one column is sorted much faster than two.
    days = np.floor(ts / _DAY_S).astype(np.int64).astype(np.uint64)
    keys, member = np.unique(group.astype(np.uint64) ^ (days * _SPREAD), return_inverse=True)
    n = np.bincount(member)
    first = np.full(len(n), np.inf)
    np.minimum.at(first, member, ts)
    order = np.lexsort((_scrambled(keys), np.floor(first / _DAY_S)))
    return np.sort(first), (np.bincount(member, weights=values) / n)[order]


def _scrambled(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return other numbers for keys, in no order; source: Steele, Lea and Flood 2014, SplitMix64."""
    mixed = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
