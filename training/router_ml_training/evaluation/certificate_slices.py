"""Which parts of the traffic keep their quality under a certified policy, all parts together at one level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from router_ml_training.evaluation.bounds import betting_e_value, check_shares, units_needed
from router_ml_training.evaluation.certificate import Candidate, Units
from router_ml_training.evaluation.outcomes import Floats, Outcomes

__all__ = ["SLICE_LOSS", "SliceResult", "certify_slices", "holm"]

Status: TypeAlias = Literal["certified", "not certified", "too few"]

# A slice has fewer rows than the whole: at the whole's 3 % none would ever pass.
SLICE_LOSS = 0.07


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One part of the traffic under the certified policy: measured loss and saving, and whether the loss is proven.

    "too few" rows can prove nothing; such a slice is not tested and costs the others no confidence.
    """

    name: str
    n_rows: int
    n_units: int
    loss: float
    saving: float
    status: Status
    p_value: float | None = None

    def to_dict(self) -> dict[str, object]:
        """As JSON values."""
        return asdict(self)


def certify_slices(
    outcomes: Outcomes,
    candidates: Sequence[Candidate],
    slices: Mapping[str, NDArray[np.bool_]],
    *,
    rng: Generator,
    allowed_loss: float = SLICE_LOSS,
    confidence: float = 0.95,
    groups: ArrayLike | None = None,
) -> tuple[SliceResult, ...]:
    """Test every slice for a loss of at most `allowed_loss`; no false "certified" among all, with that confidence.

    These rows also chose the certified policy among those before it. So a slice passes only if it would have passed at
    every step of the walk: where the first step that loses too much is tested in its own right, no choice helps.

    Args:
        outcomes: Quality in [0, 1] and cost (USD) of every tier on each of n requests, (n, K).
        candidates: The policies of the walk on the same requests, in its order, up to the certified one.
        slices: Name to the rows of it, (n,); declared before anybody saw these outcomes, they may overlap.
        rng: Draws the order of the bets.
        allowed_loss: Share of the best tier's quality that may be lost in a slice.
        confidence: Probability with which no slice that loses more is called certified.
        groups: Session or prompt of each request, (n,).

    Raises:
        UsageError: When a share is out of range.

    Source: Holm 1979, over betting tests (Waudby-Smith and Ramdas, arXiv 2010.09686).
    """
    check_shares(allowed_loss, confidence)
    best = outcomes.quality[:, outcomes.best_tier]
    names = None if groups is None else np.asarray(groups)
    units = {name: _units(rows, names, rng) for name, rows in slices.items()}
    large = _large_enough({name: one.n for name, one in units.items()}, allowed_loss, confidence)
    # Bets sized for the strictest level that Holm may ask for.
    strict = 1.0 - (1.0 - confidence) / max(len(large), 1)
    values: dict[str, float] = {}
    for name in large:
        rows = slices[name]
        tested = [(1.0 - allowed_loss) * best[rows] - one.worth[rows] for one in candidates]
        shortfalls = [units[name].means(one)[units[name].order] for one in tested]
        wealth = [betting_e_value(one, allowed_loss=allowed_loss, confidence=strict) for one in shortfalls]
        values[name] = 1.0 / min(wealth)
    candidate = candidates[-1]
    passed = holm(values, 1.0 - confidence)
    return tuple(
        SliceResult(
            name,
            int(rows.sum()),
            units[name].n,
            _lost(units[name].means(candidate.worth[rows]), units[name].means(best[rows])),
            _lost(candidate.cost[rows], outcomes.cost[rows, outcomes.best_tier]),
            "too few" if name not in values else "certified" if name in passed else "not certified",
            values.get(name),
        )
        for name, rows in slices.items()
    )


def holm(p_values: Mapping[str, float], level: float) -> frozenset[str]:
    """Return the hypotheses that are rejected, none of them falsely with probability 1 - level.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    rejected = set()
    for i, name in enumerate(sorted(p_values, key=lambda one: p_values[one])):
        if p_values[name] > level / (len(p_values) - i):
            break
        rejected.add(name)
    return frozenset(rejected)


def _units(rows: NDArray[np.bool_], groups: NDArray[np.generic] | None, rng: Generator) -> Units:
    return Units.of(int(rows.sum()), None if groups is None else groups[rows], rng)


def _large_enough(sizes: Mapping[str, int], allowed_loss: float, confidence: float) -> list[str]:
    """Return the slices in which a policy that loses nothing would pass, all of them being tested."""
    kept = sorted(sizes, key=lambda name: -sizes[name])
    while kept:
        strict = 1.0 - (1.0 - confidence) / len(kept)
        if sizes[kept[-1]] >= units_needed(allowed_loss, strict, test="betting"):
            break
        kept.pop()
    return kept


def _lost(mine: Floats, best: Floats) -> float:
    total = float(best.sum())
    return 1.0 - float(mine.sum()) / total if total > 0 else 0.0
