"""How much two windows of traffic differ, whether that is chance, and whether it is enough to care.

A line has drifted when its difference is neither: not chance by a test that knows how few independent rows there were
and how many lines were tested, and larger than the limit of its kind. Ten busy days differ in everything, significantly
and by nothing; a hundred requests differ by much, and by chance.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from router_ml.cli.output import table
from router_ml_training.histograms import Histogram, merged_bins
from router_ml_training.profile import OTHER_CLASS, Profile

__all__ = ["ALPHA", "KINDS", "POLICY_KINDS", "TRAFFIC_KINDS", "Drift", "DriftKind", "DriftLine", "drift_between"]

F64: TypeAlias = NDArray[np.float64]
I64: TypeAlias = NDArray[np.int64]

DriftKind: TypeAlias = Literal[
    "feature", "classes", "adequacy", "first_tier", "escalation", "tokens", "cost", "feedback"
]
KINDS: tuple[DriftKind, ...] = get_args(DriftKind)
# What came, whoever answers it; and what also changes when another policy decides.
TRAFFIC_KINDS: tuple[DriftKind, ...] = ("feature", "classes", "adequacy")
POLICY_KINDS: tuple[DriftKind, ...] = ("first_tier", "escalation", "tokens", "cost", "feedback")
# Chance that anything at all is called drifted where nothing has changed.
ALPHA = 0.01

# Population stability index: by custom 0.1 is a moderate shift and 0.2 a large one. Decisions hang on adequacy.
_LIMITS: Mapping[DriftKind, float] = {
    "feature": 0.2,
    "classes": 0.2,
    "adequacy": 0.1,
    "first_tier": 0.2,
    "escalation": 0.05,
    "tokens": 0.2,
    "cost": 0.2,
    "feedback": 0.05,
}
_DISTANCE: Mapping[DriftKind, Literal["psi", "difference", "ratio"]] = {
    **dict.fromkeys(KINDS, "psi"),
    "escalation": "difference",
    "feedback": "difference",
    "cost": "ratio",
}
_UNORDERED: frozenset[DriftKind] = frozenset({"classes", "first_tier"})
_BINS = 10
# Fewer independent rows are no window; fewer than so many expected in a bin of the smaller one are no bin.
_LEAST = 50
_EXPECTED = 5.0
_LEAST_CLASS = 0.02
_EXPECTED_OF_CLASS = 20.0


@dataclass(frozen=True, slots=True)
class DriftLine:
    """One comparison: means of both windows (None for categories), their distance, and what it is measured against.

    `distance` is the population stability index without the part that chance is expected to add, or the difference of
    means, or the relative change of means. `ks` is the largest difference of the two distribution functions. `p` is
    adjusted for the number of lines; None where there were too few rows to test.
    """

    name: str
    kind: DriftKind
    reference: float | None
    current: float | None
    distance: float
    p: float | None
    limit: float
    drifted: bool
    ks: float | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """All comparisons of two windows, of `n_reference` and `n_current` requests."""

    lines: tuple[DriftLine, ...]
    n_reference: int
    n_current: int

    @property
    def drifted(self) -> bool:
        """Whether any line has drifted."""
        return any(line.drifted for line in self.lines)

    @property
    def ranked(self) -> tuple[DriftLine, ...]:
        """The lines, drifted ones first, then by their distance in limits."""
        return tuple(sorted(self.lines, key=lambda line: (not line.drifted, -line.distance / line.limit)))

    @property
    def worst(self) -> DriftLine | None:
        """The first of the ranked lines."""
        return self.ranked[0] if self.lines else None

    def to_rows(self) -> list[tuple[str, float, float]]:
        """Return (name, distance, limit) per line, the worst first: what a picture shows."""
        return [(line.name, line.distance, line.limit) for line in self.ranked]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "drifted": self.drifted,
            "n_reference": self.n_reference,
            "n_current": self.n_current,
            "lines": [asdict(line) for line in self.ranked],
        }

    def to_text(self, most: int = 12) -> str:
        """Return the worst lines as a table; those that drifted are all in it.

        Args:
            most: Lines at most, unless more drifted.
        """
        shown = self.ranked[: max(most, sum(line.drifted for line in self.lines))]
        rows = [
            (
                "drifted" if line.drifted else "",
                line.name,
                _number(line.reference),
                _number(line.current),
                f"{line.distance:.3f}",
                f"{line.limit:g}",
                _number(line.p, "{:.2g}"),
            )
            for line in shown
        ]
        listed = table(("", "what", "before", "now", "distance", "limit", "p"), rows)
        left = len(self.lines) - len(shown)
        return listed + (f"\n{left} more lines are within their limits" if left else "")


def drift_between(
    reference: Profile, current: Profile, *, kinds: Collection[DriftKind] = KINDS, alpha: float = ALPHA
) -> Drift:
    """Compare two windows of traffic.

    Every line is a chi-square test of homogeneity on at most ten bins, corrected for rows that belong together (Rao and
    Scott), the p-values for their number (Holm).

    Args:
        reference: The window that is taken for normal.
        current: The window in question.
        kinds: What is compared. Another policy than the reference's changes `POLICY_KINDS`, whatever the traffic does.
        alpha: Chance that any line is called drifted where nothing has changed.

    Source: Rao and Scott 1984, "On chi-squared tests for multiway contingency tables with cell proportions estimated
    from survey data"; Yurdakul 2018 on the distribution of the population stability index.
    """
    pairs = [pair for pair in _pairs(reference, current) if pair[1] in kinds]
    compared = [_compare(kind, before, now) for _, kind, before, now in pairs]
    adjusted = _holm([one.p for one in compared])
    lines = [
        DriftLine(
            name,
            kind,
            None if kind in _UNORDERED else before.mean,
            None if kind in _UNORDERED else now.mean,
            one.distance,
            p,
            _LIMITS[kind],
            p is not None and p <= alpha and one.distance > _LIMITS[kind],
            one.ks,
        )
        for (name, kind, before, now), one, p in zip(pairs, compared, adjusted, strict=True)
    ]
    return Drift(tuple(lines), reference.n, current.n)


_Pair: TypeAlias = tuple[str, DriftKind, Histogram, Histogram]


def _pairs(reference: Profile, current: Profile) -> list[_Pair]:
    same_ladder = reference.tiers == current.tiers
    single: list[tuple[str, DriftKind, Histogram | None, Histogram | None]] = [
        ("class of request", "classes", reference.classes, current.classes),
        ("first tier", "first_tier", *((reference.first_tier, current.first_tier) if same_ladder else (None, None))),
        ("escalation", "escalation", reference.escalation, current.escalation),
    ]
    named: list[tuple[str, DriftKind, Mapping[str, Histogram], Mapping[str, Histogram]]] = [
        ("", "feature", reference.features, current.features),
        ("adequacy ", "adequacy", reference.adequacy, current.adequacy),
        ("input tokens ", "tokens", reference.input_tokens, current.input_tokens),
        ("output tokens ", "tokens", reference.output_tokens, current.output_tokens),
        ("cost ", "cost", reference.cost_usd, current.cost_usd),
        ("feedback ", "feedback", reference.feedback, current.feedback),
    ]
    found: list[_Pair] = [
        (name, kind, before, now) for name, kind, before, now in single if before is not None and now is not None
    ]
    for prefix, kind, before, now in named:
        found += [(f"{prefix}{name}", kind, before[name], now[name]) for name in before if name in now]
    return found


@dataclass(frozen=True, slots=True)
class _Compared:
    distance: float
    p: float | None
    ks: float | None


def _compare(kind: DriftKind, before: Histogram, now: Histogram) -> _Compared:
    bins = np.array(sorted({*before.bins, *now.bins}), np.int64)
    shares = np.stack([before.share(bins), now.share(bins)])
    worth = _worth(before, now)
    merged = _frequent(shares, bins, worth) if kind in _UNORDERED else _few_bins(shares, worth)
    ks = None if kind in _UNORDERED else float(np.abs(np.diff(np.cumsum(shares, axis=1), axis=0)).max())
    how = _DISTANCE[kind]
    if how == "difference":
        distance = abs(now.mean - before.mean)
    elif how == "ratio":
        distance = abs(now.mean / before.mean - 1.0) if before.mean else float(now.mean > 0.0)
    else:
        distance = _stability(merged, worth)
    return _Compared(distance, _p_value(merged, worth, max(before.spread, now.spread)), ks)


def _worth(before: Histogram, now: Histogram) -> F64:
    """Return how many independent rows each window is worth, (2,).

    Both are believed to be as clustered as the more clustered one: in a small window that is hard to tell.
    """
    effect = max(before.n / before.effective, now.n / now.effective)
    return np.array([before.n, now.n]) / effect


def _few_bins(shares: F64, worth: F64) -> F64:
    """Merge neighbours into at most ten bins of about equal share of both windows, (2, J)."""
    label = merged_bins(shares.mean(axis=0), size=1.0 / _BINS, least=_EXPECTED / max(float(worth.min()), 1.0))
    return np.stack([np.bincount(label, weights=row) for row in shares])


def _frequent(shares: F64, bins: I64, worth: F64) -> F64:
    """Keep the classes that are frequent enough to be seen in both windows; all others are one, (2, J)."""
    enough = max(_LEAST_CLASS, _EXPECTED_OF_CLASS / max(float(worth.min()), 1.0))
    kept = (shares.mean(axis=0) >= enough) & (bins != OTHER_CLASS)
    others = shares[:, ~kept].sum(axis=1, keepdims=True)
    return np.hstack([shares[:, kept], others]) if others.any() else shares[:, kept]


def _stability(shares: F64, worth: F64) -> float:
    """Return the population stability index less what chance adds to it."""
    n_bins = shares.shape[1]
    if n_bins < 2:
        return 0.0
    smooth = (shares * worth[:, None] + 0.5) / (worth[:, None] + 0.5 * n_bins)
    index = float(((smooth[1] - smooth[0]) * np.log(smooth[1] / smooth[0])).sum())
    by_chance = (n_bins - 1) * float((1.0 / np.maximum(worth, 1.0)).sum())
    return float(max(index - by_chance, 0.0))


def _p_value(shares: F64, worth: F64, spread: float) -> float | None:
    n_bins = shares.shape[1]
    if worth.min() < _LEAST:
        return None
    if n_bins < 2:
        return 1.0
    pooled = worth @ shares / worth.sum()
    statistic = float(((shares[1] - shares[0]) ** 2 / pooled).sum() / (1.0 / worth).sum())
    return float(chi2.sf(statistic / (1.0 + spread), (n_bins - 1) / (1.0 + spread)))


def _holm(values: list[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number; None stays."""
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    adjusted: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted


def _number(value: float | None, form: str = "{:.4g}") -> str | None:
    return None if value is None else form.format(value)
