"""What a policy is proven to lose at most: Learn-then-Test along a fixed list of policies, from safe to bold.

Certified is a mean over independent units: a session, or a prompt that comes again, counts once, with the mean of its
rows, however many it has. With one row per session or prompt this is the loss per request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, Self, TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from router_ml.errors import DataError
from router_ml_training.evaluation.bootstrap import DRAWS, statistic_figure
from router_ml_training.evaluation.bounds import (
    TestName,
    betting_e_value,
    check_shares,
    clopper_pearson_p,
    least_share_kept,
    units_needed,
)
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Floats, Ints, Outcomes

__all__ = [
    "Candidate",
    "Certificate",
    "Evidence",
    "Step",
    "Tested",
    "Units",
    "certify",
    "fixed_sequence",
    "saving_figure",
]

# What a certificate rests on: requests with every tier's outcome, or chains rectified by audits.
Evidence: TypeAlias = Literal["pairs", "chains and audits"]
# A saving below this is what sums of equal numbers differ by.
_ROUNDING = 1e-6
Tested: TypeAlias = tuple[bool, float | None, float | None]


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A policy to test: its name on the frontier, and what it was worth and cost (USD) on each request, (n,) each.

    Every attempt of a plan is in its cost, and the answer that was kept gives its quality.
    """

    quality: float
    shadow_price: float
    worth: Floats
    cost: Floats


@dataclass(frozen=True, slots=True)
class Step:
    """One policy of the walk; `shadow_price` is None for always the best tier, `p_value` where nothing was tested.

    `loss` is the measured share of the best tier's quality that is lost, `saving` the share of its cost that is saved.
    """

    quality: float
    shadow_price: float | None
    loss: float
    saving: float
    certified: bool
    p_value: float | None = None
    e_value: float | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """With what confidence which policy loses at most `allowed_loss` of the best tier's quality.

    `index` is the boldest certified step; step 0, always the best tier, loses nothing by definition. `saving` is
    that step's share of the bill, over all rows, with a bootstrap interval of the same confidence. `least_kept` is what
    every router has to leave to the best tier, see `least_share_kept`.
    """

    date: datetime
    confidence: float
    allowed_loss: float
    test: TestName
    n_rows: int
    n_units: int
    best_tier: str
    steps: tuple[Step, ...]
    index: int
    saving: Figure
    least_kept: float
    evidence: Evidence = "pairs"

    @property
    def point(self) -> Step:
        """The certified policy."""
        return self.steps[self.index]

    @property
    def beyond_constant(self) -> bool:
        """Whether a policy is certified that is cheaper than always the best tier."""
        return self.index > 0 and (self.saving.value or 0.0) > _ROUNDING

    @property
    def verdict(self) -> str:
        """What to do, in one sentence."""
        bound = f"at most {100 * self.allowed_loss:g} % of the quality of {self.best_tier}"
        sure = f"{100 * self.confidence:g} % confidence"
        if self.beyond_constant:
            saved = f"{_percent(self.saving.value)} of its cost (at least {_percent(self.saving.low)})"
            return (
                f"Certified with {sure}: at quality {self.point.quality:g} the router loses {bound} and saves {saved}."
            )
        other = "cheaper" if self.index else "other"
        proven = f"no {other} policy is proven, with {sure}, to lose {bound}"
        return f"Keep the constant model (always {self.best_tier}): {proven}."

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values, the certified policy's figures at the top."""
        found = {name: value for name, value in asdict(self).items() if name not in ("date", "saving")}
        return {
            "verdict": self.verdict,
            "beyond_constant": self.beyond_constant,
            "date": self.date.isoformat(),
            "quality": self.point.quality,
            "shadow_price": self.point.shadow_price,
            "p_value": self.point.p_value,
            "e_value": self.point.e_value,
            "saving": self.saving.to_dict(),
            **found,
        }


def certify(
    outcomes: Outcomes,
    candidates: Sequence[Candidate],
    *,
    tiers: Sequence[str],
    date: datetime,
    rng: Generator,
    allowed_loss: float = 0.03,
    confidence: float = 0.95,
    test: TestName = "betting",
    groups: ArrayLike | None = None,
    draws: int = DRAWS,
) -> Certificate:
    """Walk from always the best tier to the boldest candidate; stop at the first that is not proven to lose little.

    Fixed-sequence testing needs no correction for the number of candidates, only that their order was fixed before
    anybody saw these outcomes.

    Args:
        outcomes: Quality in [0, 1] and cost (USD) of every tier on each of n requests, (n, K); `best_tier` must have
            been chosen on other data.
        candidates: Policies from safe to bold, chosen on other data.
        tiers: Names of the K columns.
        date: When this is.
        rng: Draws the order of the bets, one row per unit for Clopper-Pearson, and the bootstrap samples.
        allowed_loss: Share of the best tier's quality that may be lost.
        confidence: Probability with which no policy that loses more is certified.
        test: `betting` on the loss itself, or `clopper-pearson` on harm: how often, where the best tier is right, the
            policy is wrong. Gains elsewhere do not count then, so it is the more cautious one; quality must be 0 or 1.
        groups: Session or prompt of each request, (n,); None: every request is a unit.
        draws: Bootstrap draws for the interval of the saving.

    Raises:
        DataError: When no test could succeed on so few units, or the quality is not what the test needs.
        UsageError: When a share is out of range.

    Source: Angelopoulos, Bates, Candes, Jordan, Lei, Learn then Test, arXiv 2110.01052, section 2.3.
    """
    check_shares(allowed_loss, confidence)
    units = Units.of(_bounded(outcomes), groups, rng)
    kind = _Betting if test == "betting" else _Harm
    p_of: _Betting | _Harm = kind(outcomes, units, allowed_loss, confidence)
    needed = units_needed(allowed_loss, confidence, test=test)
    if p_of.n < needed:
        raise DataError(
            f"{p_of.n} {p_of.counted} are too few to certify a loss of at most {100 * allowed_loss:g} % with "
            f"{100 * confidence:g} % confidence: the {test} test needs at least {needed}, and a few thousand when the "
            "true loss is near; audit more requests (run and judge every tier on them), or allow more"
        )
    tested = fixed_sequence([lambda one=one: p_of(one.worth) for one in candidates], 1.0 - confidence)  # type: ignore[misc]
    steps = (Step(1.0, None, 0.0, 0.0, certified=True), *_steps(outcomes, candidates, units, tested))
    index = max(i for i, step in enumerate(steps) if step.certified)
    spent = candidates[index - 1].cost if index else outcomes.cost[:, outcomes.best_tier]
    return Certificate(
        date=date,
        confidence=confidence,
        allowed_loss=allowed_loss,
        test=test,
        n_rows=outcomes.n,
        n_units=units.n,
        best_tier=tiers[outcomes.best_tier],
        steps=steps,
        index=index,
        saving=saving_figure(outcomes.cost[:, outcomes.best_tier], spent, groups, rng, confidence, draws),
        least_kept=least_share_kept(_unavoidable(outcomes, units), allowed_loss),
    )


def fixed_sequence(tests: Sequence[Callable[[], tuple[float, float | None]]], level: float) -> list[Tested]:
    """Run tests in their order up to the first that does not reject; no more is tested after it.

    Args:
        tests: Each returns a p-value and, if it has one, an e-value; the order was fixed before the data were seen.
        level: Probability with which any true hypothesis may be rejected.

    Returns:
        Per test, whether it was rejected (the policy is certified), its p-value and its e-value.
    """
    found: list[Tested] = []
    walking = True
    for test in tests:
        p, wealth = test() if walking else (None, None)
        walking = p is not None and p <= level
        found.append((walking, p, wealth))
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Unit of each row (n,), rows of each unit, one row of each, and a random order of the units, all (units,)."""

    member: Ints
    size: Floats
    drawn: Ints
    order: Ints

    @classmethod
    def of(cls, n: int, groups: ArrayLike | None, rng: Generator) -> Self:
        """Gather n rows into units by their session or prompt, (n,); None: every row is a unit."""
        names = np.arange(n) if groups is None else np.asarray(groups)
        _, member, size = np.unique(names, return_inverse=True, return_counts=True)
        shuffled = rng.permutation(n)
        _, first = np.unique(member[shuffled], return_index=True)
        return cls(member, size.astype(np.float64), shuffled[first], rng.permutation(len(size)))

    @property
    def n(self) -> int:
        """How many there are."""
        return len(self.size)

    def means(self, values: Floats) -> Floats:
        """Return the mean of each unit's rows, (units,)."""
        return np.bincount(self.member, values, minlength=self.n) / self.size


class _Betting:
    """The loss itself; quality may be graded."""

    counted = "sessions or prompts with every tier's outcome"

    def __init__(self, outcomes: Outcomes, units: Units, allowed_loss: float, confidence: float) -> None:
        self.n = units.n
        self._units, self._outcomes = units, outcomes
        self._loss, self._confidence = allowed_loss, confidence

    def __call__(self, quality: Floats) -> tuple[float, float | None]:
        best = self._outcomes.quality[:, self._outcomes.best_tier]
        shortfall = self._units.means((1.0 - self._loss) * best - quality)[self._units.order]
        wealth = betting_e_value(shortfall, allowed_loss=self._loss, confidence=self._confidence)
        return 1.0 / wealth, wealth


class _Harm:
    """How often the policy is wrong where the best tier is right: a bound of the loss where answers are right or wrong.

    Harm among all requests would bound the loss as a share of 1, not of the best tier's quality.
    """

    counted = "sessions or prompts that the best tier answers well"

    def __init__(self, outcomes: Outcomes, units: Units, allowed_loss: float, _: float) -> None:
        if not np.isin(outcomes.quality, (0.0, 1.0)).all():
            raise DataError("clopper-pearson counts answers that are right or wrong, and some of these are graded: bet")
        self._rows = units.drawn[outcomes.quality[units.drawn, outcomes.best_tier] == 1.0]
        self.n = len(self._rows)
        self._loss = allowed_loss

    def __call__(self, quality: Floats) -> tuple[float, float | None]:
        return clopper_pearson_p(int((quality[self._rows] == 0.0).sum()), self.n, self._loss), None


def _bounded(outcomes: Outcomes) -> int:
    if outcomes.quality.min() < 0.0 or outcomes.quality.max() > 1.0:
        raise DataError("a certificate needs quality in [0, 1]: without bounds nothing is certain about a mean")
    return outcomes.n


def _steps(outcomes: Outcomes, candidates: Sequence[Candidate], units: Units, tested: Sequence[Tested]) -> list[Step]:
    bill = float(outcomes.cost[:, outcomes.best_tier].sum())
    reference = float(units.means(outcomes.quality[:, outcomes.best_tier]).mean())
    steps = []
    for candidate, (certified, p, wealth) in zip(candidates, tested, strict=True):
        loss = 1.0 - float(units.means(candidate.worth).mean()) / reference if reference > 0 else 0.0
        saving = 1.0 - float(candidate.cost.sum()) / bill if bill > 0 else 0.0
        steps.append(Step(candidate.quality, candidate.shadow_price, loss, saving, certified, p, wealth))
    return steps


def saving_figure(
    best: Floats, spent: Floats, groups: ArrayLike | None, rng: Generator, level: float, draws: int
) -> Figure:
    """Return the share of the best tier's bill that is saved, with its bootstrap interval.

    Args:
        best: USD of the best tier, (n,).
        spent: USD of the policy, (n,).
        groups: Session or prompt of each request, (n,).
        rng: Source of the draws.
        level: Share of the draws inside the interval.
        draws: How many.
    """

    def saved(weights: Floats) -> Floats:
        bill = weights @ best
        return np.where(bill > 0, 1.0 - weights @ spent / np.where(bill > 0, bill, 1.0), np.nan)

    reason = f"the best tier costs nothing on these {len(best)} requests"
    return statistic_figure(saved, len(best), rng=rng, draws=draws, groups=groups, level=level, reason=reason)


def _unavoidable(outcomes: Outcomes, units: Units) -> float:
    """Share of the best tier's quality that is lost when every request goes to its best other tier."""
    best = outcomes.quality[:, outcomes.best_tier]
    others = np.delete(outcomes.quality[:, : outcomes.n_tiers], outcomes.best_tier, axis=1).max(axis=1, initial=0.0)
    total = float(units.means(best).sum())
    return float(units.means(np.maximum(best - others, 0.0)).sum()) / total if total > 0 else 0.0


def _percent(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"
