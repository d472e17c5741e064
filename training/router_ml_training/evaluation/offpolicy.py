"""What a policy would have been worth on requests that another policy answered: DM, IPS, SNIPS and DR, or a refusal.

With b(a|x) the probability that the log's policy gave the action, p(a|x) the target's, w = p(A|x) / b(A|x) for the
action A that was taken, r its reward and m(x, a) a model of the reward, every estimate is a mean over the rows:

    DM          sum_a p(a|x) m(x, a)                       as good as the model
    IPS         w r                                        unbiased; wide                   Horvitz & Thompson 1952
    SNIPS       w r / mean(w)                              nearly unbiased; narrower        Swaminathan & Joachims 2015
    DR          sum_a p(a|x) m(x, a) + w (r - m(x, A))     unbiased; as narrow as the model is good  Dudik et al. 2011
    DR clipped  the same with min(w, clip)                 biased where it clips; never wide
    DR shrunk   DM + e z^4 / (z^4 + 2.5^4)                 between DM and DR: e is DR - DM, z = e / its standard error

Intervals come from the influence function of each mean and treat the model as given: it must come from other rows, or
be cross-fitted (`recalibrated`). They are as wide as Student's t says for the effective number of units, because a few
heavy requests are few. Rows of one group count as one. DR shrunk has DR's interval, which holds however wrong the model
is; only its point leans on the model as far as the log does not contradict it, and never leaves that interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.stats import t as student

from router_ml.errors import DataError
from router_ml_training.evaluation.compare import standard_error
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Floats, Ints

__all__ = ["CLIP", "ESTIMATORS", "Logged", "OffPolicy", "Overlap", "evaluate_offpolicy", "overlap", "recalibrated"]

ESTIMATORS = {
    "dm": "DM",
    "ips": "IPS",
    "snips": "SNIPS",
    "dr": "DR",
    "dr_clipped": "DR clipped",
    "dr_shrunk": "DR shrunk",
}
CLIP = 10.0
MIN_ESS = 100.0
MAX_WEIGHT = 50.0
# Below this the log says next to nothing about an action: a request that needs it has no support.
MIN_PROPENSITY = 0.01
# The mean weight of a log with true propensities is 1: further away, by more than chance, they are not true.
_MEAN_WEIGHT_MARGIN, _MEAN_WEIGHT_ERRORS = 0.03, 4.0
_LEVEL = 0.95
# Where DR contradicts the model by so many standard errors, half of the contradiction is believed.
_HALF_BELIEVED = 2.5
_POWER = 4.0
_FOLDS = 5
# So many rows that agree with the model are believed beforehand.
_RIDGE = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """What a log says about n requests and K actions.

    Args:
        action: The action that was taken, (n,).
        propensity: Probability of every action under the policy that wrote the log, fixed before the draw, (n, K). A
            row may sum to less than 1 where the policy knew further actions.
        reward: Reward of the action that was taken, (n,).
        group: Session or template of each request, (n,); None: every row stands for itself.

    Raises:
        DataError: When shapes differ, something is not finite, or an action was taken that had probability 0.
    """

    action: Ints
    propensity: Floats
    reward: Floats
    group: Ints | None = None

    def __post_init__(self) -> None:
        """Refuse what is no log of a random policy."""
        object.__setattr__(self, "action", np.asarray(self.action, dtype=np.intp))
        if self.group is not None:
            object.__setattr__(self, "group", np.asarray(self.group))
        for name in ("propensity", "reward"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        n = self.action.size
        if self.action.shape != (n,) or self.propensity.shape[:1] != (n,) or self.propensity.ndim != 2:
            raise DataError(f"action {self.action.shape} and propensity {self.propensity.shape} must be (n,), (n, K)")
        if self.reward.shape != (n,) or (self.group is not None and self.group.shape != (n,)):
            raise DataError(f"reward and group must have shape ({n},), like the actions")
        if n and not 0 <= int(self.action.min()) <= int(self.action.max()) < self.propensity.shape[1]:
            raise DataError(f"actions must lie in 0 to {self.propensity.shape[1] - 1}: leave other rows out")
        if not (np.isfinite(self.propensity).all() and np.isfinite(self.reward).all()):
            raise DataError("propensity and reward must be finite: leave rows out that lack one")
        if (self.propensity < 0).any() or (self.propensity.sum(axis=1) > 1.001).any():
            raise DataError("propensities must be 0 or more and sum to at most 1 per request")
        impossible = int((self.taken <= 0).sum())
        if impossible:
            raise DataError(
                f"{impossible} of {n} requests went to a tier that had probability 0: these propensities are not those "
                "of the policy that wrote the log; log them before the draw"
            )

    @property
    def taken(self) -> Floats:
        """Propensity of the action that was taken, (n,)."""
        return _at(self.propensity, self.action)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much a log says about a target policy.

    `ess` is the effective sample size (sum w)^2 / sum w^2, with the weights of one group added up first: many rows of
    few sessions are few. `mean_weight` has the expectation 1, `unsupported` is the share of the target's probability on
    actions that the log gave a propensity below 0.01, and `reason` says why no estimate should be made from these
    weights (None: nothing speaks against it).
    """

    n: int
    ess: float
    max_weight: float
    mean_weight: float
    unsupported: float
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class OffPolicy:
    """One reward of a target policy: each estimator's figure by its key in `ESTIMATORS`, and the overlap behind it."""

    figures: Mapping[str, Figure]
    overlap: Overlap


def overlap(logged: Logged, target: ArrayLike) -> Overlap:
    """Check whether a log can say anything about a target policy, before any estimate.

    Args:
        logged: The log; rewards are not looked at.
        target: Probability of every action under the target policy, (n, K), rows summing to 1.

    Source: effective sample size after Kish 1965.
    """
    wanted = _distribution(target, logged)
    if not logged.action.size:
        return Overlap(0, 0.0, 0.0, 0.0, 0.0, "no request to learn from: its first tier, propensities and reward")
    weights = _at(wanted, logged.action) / logged.taken
    units = weights if logged.group is None else np.bincount(_member(logged.group), weights)
    total, squares = float(units.sum()), float(np.sum(units**2))
    unsupported = float(wanted[logged.propensity < MIN_PROPENSITY].sum() / len(wanted))
    ess = total**2 / squares if squares > 0 else 0.0
    mean, largest = float(weights.mean()), float(weights.max())
    error = standard_error(weights, logged.group)
    return Overlap(len(weights), ess, largest, mean, unsupported, _objection(ess, largest, mean, unsupported, error))


def _objection(ess: float, largest: float, mean: float, unsupported: float, error: float) -> str | None:
    if unsupported > 1e-12:
        return (
            f"no support: {unsupported:.1%} of what this policy would do, the log's policy did with probability below "
            f"{MIN_PROPENSITY:g}; explore those tiers, or audit a share of the requests and evaluate on that"
        )
    if largest > MAX_WEIGHT:
        return (
            f"a single request would count {largest:.0f} times (at most {MAX_WEIGHT:.0f}): explore more, "
            "or audit a share of the requests and evaluate on that"
        )
    if ess < MIN_ESS:
        return (
            f"the log is worth {ess:.0f} independent requests of this policy (at least {MIN_ESS:.0f}): collect "
            "more feedback, explore more, or audit a share of the requests and evaluate on that"
        )
    if abs(mean - 1.0) > max(_MEAN_WEIGHT_MARGIN, _MEAN_WEIGHT_ERRORS * error):
        return (
            f"the mean weight is {mean:.3f} where true propensities give 1: they are not those of the log's policy, or "
            "some tiers are judged more often than others; audit a share of the requests and evaluate on that"
        )
    return None


def evaluate_offpolicy(logged: Logged, target: ArrayLike, model: ArrayLike, *, clip: float = CLIP) -> OffPolicy:
    """Estimate the mean reward that a target policy would have had on logged requests, with 95 % intervals.

    Every estimator that uses weights is refused (value None, with the reason) where the overlap is too poor. DM uses
    none; without overlap it is the model's opinion on actions nobody tried.

    Args:
        logged: What the log's policy did and got.
        target: Probability of every action under the target policy, (n, K), rows summing to 1.
        model: Expected reward of every action, (n, K), fitted on other rows.
        clip: Largest weight of the clipped DR.

    Raises:
        DataError: When shapes differ, the target is no distribution, or the model is not finite.

    Source: Horvitz & Thompson 1952 (IPS); Swaminathan & Joachims 2015, "The self-normalized estimator for
    counterfactual learning" (SNIPS); Dudik et al. 2011, arXiv 1103.4601 (DM, DR).
    """
    wanted, expected = _distribution(target, logged), np.asarray(model, dtype=np.float64)
    if expected.shape != wanted.shape or not np.isfinite(expected).all():
        raise DataError(f"the model must give one finite reward per request and action, shape {wanted.shape}")
    found = overlap(logged, wanted)
    if found.n < 2:
        reason = found.reason or "one request has no spread"
        return OffPolicy({name: Figure(None, reason=reason) for name in ESTIMATORS}, found)
    weights = _at(wanted, logged.action) / logged.taken
    direct = (wanted * expected).sum(axis=1)
    surprise = logged.reward - _at(expected, logged.action)
    parts = {
        "ips": weights * logged.reward,
        "dr": direct + weights * surprise,
        "dr_clipped": direct + np.minimum(weights, clip) * surprise,
    }
    figures = {"dm": _mean(direct, logged.group)}
    for name in ("ips", "snips", "dr", "dr_clipped", "dr_shrunk"):
        if found.reason is not None:
            figures[name] = Figure(None, reason=found.reason)
        elif name == "snips":
            figures[name] = _ratio(weights, logged.reward, logged.group)
        elif name == "dr_shrunk":
            error = max(standard_error(weights * surprise, logged.group), _expected_error(logged, wanted, surprise))
            figures[name] = _shrunk(figures["dr"], float(direct.mean()), float(np.mean(weights * surprise)), error)
        else:
            figures[name] = _mean(parts[name], logged.group)
    return OffPolicy(figures, found)


def recalibrated(
    predicted: ArrayLike, logged: Logged, rng: Generator, *, bounds: tuple[float, float] | None = None
) -> Floats:
    """Correct a reward model by the log's own rewards, each row by rows of other folds only.

    Per action, the error of the model is regressed on a constant and on what it predicts, by ridge: with few rows the
    model stays as it is.

    Args:
        predicted: Expected reward of every action, fitted on other data, (n, K).
        logged: The log; rows of one group share a fold.
        rng: Draws the folds.
        bounds: Smallest and largest reward there can be.

    Returns:
        The corrected model, (n, K).
    """
    model = np.asarray(predicted, dtype=np.float64)
    n, k = model.shape
    names = np.arange(n) if logged.group is None else _member(logged.group)
    fold = rng.permutation(int(names.max(initial=0)) + 1)[names] % _FOLDS
    found = model.copy()
    for a in range(k):
        spread = float(model[:, a].std())
        x = np.column_stack((np.ones(n), (model[:, a] - model[:, a].mean()) / (spread or 1.0)))
        for one in range(_FOLDS):
            learn, apply = (fold != one) & (logged.action == a), fold == one
            gram = x[learn].T @ x[learn] + _RIDGE * np.eye(2)
            weights = np.linalg.solve(gram, x[learn].T @ (logged.reward[learn] - model[learn, a]))
            found[apply, a] += x[apply] @ weights
    return found if bounds is None else np.clip(found, *bounds)


def _mean(values: Floats, group: Ints | None) -> Figure:
    return _figure(float(values.mean()), values, group)


def _ratio(weights: Floats, reward: Floats, group: Ints | None) -> Figure:
    # The influence of one row on sum(w r) / sum(w), by the delta method: w (r - value) / mean(w), whose mean is 0.
    mean = float(weights.mean())
    value = float(np.mean(weights * reward)) / mean
    return _figure(value, weights * (reward - value) / mean, group)


def _shrunk(dr: Figure, direct: float, correction: float, error: float) -> Figure:
    if not error > 0.0:
        return dr
    believed = 1.0 / (1.0 + (_HALF_BELIEVED * error / max(abs(correction), 1e-300)) ** _POWER)
    point = direct + correction * believed
    low, high = point if dr.low is None else dr.low, point if dr.high is None else dr.high
    return Figure(min(max(point, low), high), dr.low, dr.high)


def _expected_error(logged: Logged, wanted: Floats, surprise: Floats) -> float:
    """Return the standard error that DR's correction should have, from the errors seen per action and all propensities.

    Where a few rows with large weights happened to be no surprise, the observed one is far too small.
    """
    k = wanted.shape[1]
    taken = [logged.action == a for a in range(k)]
    squared = np.array([float(np.mean(surprise[rows] ** 2)) if rows.any() else 0.0 for rows in taken])
    chance = np.where(wanted > 0.0, np.maximum(logged.propensity, MIN_PROPENSITY), 1.0)
    rows = (wanted**2 / chance * squared).sum(axis=1)
    # Rows of one group are as one: the variance of their sum is at most what it is where they are all alike.
    sums = rows.sum() if logged.group is None else float((np.bincount(_member(logged.group), np.sqrt(rows)) ** 2).sum())
    return float(np.sqrt(sums)) / len(wanted)


def _member(group: Ints) -> Ints:
    return np.unique(group, return_inverse=True)[1]


def _figure(value: float, influence: Floats, group: Ints | None) -> Figure:
    error = standard_error(influence, group)
    half = float(student.ppf(0.5 + _LEVEL / 2, _degrees(influence, group))) * error if error > 0.0 else 0.0
    return Figure(value, value - half, value + half)


def _degrees(influence: Floats, group: Ints | None) -> float:
    """Return the degrees of freedom of a mean's standard error, after Satterthwaite: heavy rows count for few."""
    centred = influence - influence.mean()
    units = centred if group is None else np.bincount(_member(group), centred)
    squares = units**2
    return max(float(squares.sum()) ** 2 / float((squares**2).sum()), 1.0)


def _at(table: Floats, action: Ints) -> Floats:
    cells: Floats = table[np.arange(len(table)), action]
    return cells


def _distribution(target: ArrayLike, logged: Logged) -> Floats:
    wanted = np.asarray(target, dtype=np.float64)
    if wanted.shape != logged.propensity.shape:
        raise DataError(f"the target must give one probability per request and action, {logged.propensity.shape}")
    if not np.isfinite(wanted).all() or (wanted < 0).any() or (np.abs(wanted.sum(axis=1) - 1.0) > 1e-6).any():
        raise DataError("the target's probabilities must be 0 or more and sum to 1 for every request")
    return wanted
