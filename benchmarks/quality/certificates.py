"""I. Certificates: how often one is wrong, and how much saving it certifies, on MMLU-Pro with prompt and answer.

Half of the rows is learned from, which takes half a minute, so it is drawn `HALVES` times and not 200: each time the
models see one half (equal prompts share a side), and their scores of the other half are frozen. Per resample, a tenth
of all rows is taken from that other half to fix the list of policies (prices, safe to bold, spaced by the saving they
bring there). What is left is the population: a quarter of all rows is drawn from it with replacement for the
certificate, and the certified policy's loss over all of it is the true one. Logs: the same, where models have learned
from a log of the first half, and the certificate sees only what the log of its rows shows, a tenth of them audited.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.cascade_scores import fit_fold
from benchmarks.quality.protocols import Protocol, Split, ladder_of, read
from benchmarks.quality.result import Result
from benchmarks.results_file import Row
from router_ml.cli.output import table
from router_ml.features import DENSE_NAMES
from router_ml.ladder import Ladder
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.baselines import oracle_sweep
from router_ml_training.evaluation.certificate import Candidate, Certificate, certify
from router_ml_training.evaluation.certificate_partial import KeptColumn, PartialLog, certify_partial
from router_ml_training.evaluation.curves import curve_of
from router_ml_training.evaluation.metrics import cs, random_cs
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import price_grid
from router_ml_training.plans import act
from router_ml_training.splits import group_folds

__all__ = ["Frozen", "Log", "certified", "logged", "run"]

F64: TypeAlias = NDArray[np.float64]
Rows: TypeAlias = NDArray[np.int64]
Log: TypeAlias = Literal["full pairs", "uniform", "skewed", "cascade"]

RESAMPLES = 200
HALVES = 8
AUDIT_SHARE = 0.1
_LOSS, _SURE = 0.03, 0.95
_TUNE, _CERTIFY = 0.10, 0.25
_PRICES = 160
# Neighbours on the list differ by this much of the bill; the list ends where the tune rows lose three times too much.
_STEP, _TOO_BOLD = 0.004, 3 * _LOSS
_EPSILON = 0.05
_LENGTH = DENSE_NAMES.index("text.log_chars")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_D = Protocol("I", "", "mmlu_pro", "gemini-1.5-flash-002", "gemini-1.5-pro-002", "folds")


@dataclass(frozen=True, slots=True, eq=False)
class Frozen:
    """The half that was not learned from: outcomes, and what each policy of the list did, from safe to bold.

    `worth`, `cost` and `kept` are (m, n): quality, USD of all attempts, and the tier whose answer was given.
    `adequacy` (n, K) is what the heads said before the call.
    """

    outcomes: Outcomes
    adequacy: F64
    worth: F64
    cost: F64
    kept: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One resample: the true loss of what was certified, on all of the population and on rows not drawn; the saving."""

    loss: float
    loss_unseen: float
    saving: float
    beyond: bool


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Run protocol I; `draws` is not used, its intervals are over resamples.

    Raises:
        DataError: When the table is missing.
    """
    data, ladder = read(_D, folder).dataset, ladder_of(_D, folder)
    found: dict[Log, list[Drawn]] = {"full pairs": []}
    for half in range(HALVES):
        frozen = _frozen(data, ladder, "full pairs", half)
        found["full pairs"] += _resampled(frozen, "full pairs", len(data), half, RESAMPLES // HALVES)
    logs: tuple[Log, ...] = ("uniform", "skewed", "cascade")
    for number, log in enumerate(logs):
        found[log] = _resampled(_frozen(data, ladder, log, number), log, len(data), number, RESAMPLES)
    rows = [row for log, one in found.items() for row in _rows(log, one, round(_CERTIFY * len(data)))]
    return Result(("I",), _text(found, data), tuple(rows))


def _frozen(data: Dataset, ladder: Ladder, log: Log, seed: int) -> Frozen:
    """Learn from one half of the rows as the log shows them, and score the other, whose answers a service would see."""
    rng = np.random.default_rng(seed)
    first = group_folds(data.group, 2, rng) == 0
    train, rest = np.flatnonzero(first), np.flatnonzero(~first)
    seen = data if log == "full pairs" else logged(data, log, rng, only=first)
    fold = fit_fold(seen, ladder, Split(seed, train, rest))
    outcomes = Outcomes(data.quality[rest], data.cost_usd[rest], best=data.tiers.index("large"))
    prices = price_grid(*fold.train.opinions(), _PRICES)
    taken = [act(fold.test, float(price)) for price in prices]
    return Frozen(
        outcomes,
        fold.test.adequacy,
        np.stack([one.quality(outcomes) for one in taken]),
        np.stack([one.cost(outcomes) for one in taken]),
        np.stack([one.last for one in taken]),
    )


def logged(data: Dataset, log: Log, rng: np.random.Generator, *, only: NDArray[np.bool_]) -> Dataset:
    """Return a dataset in which some rows, `only` (n,), are known as far as a log with audits shows them."""
    n = len(data)
    small, large = data.tiers.index("small"), data.tiers.index("large")
    audited = rng.random(n) < AUDIT_SHARE
    length = data.dense[:, _LENGTH]
    preferred = (length > np.median(length)).astype(np.float64)
    chance = {
        "uniform": np.full(n, 0.5),
        "skewed": (1 - _EPSILON) * preferred + _EPSILON / 2,
        "cascade": np.zeros(n),
    }[log]
    goes_large = rng.random(n) < chance
    failed = data.quality[:, small] < 1.0
    tried = np.zeros(data.quality.shape, np.bool_)
    tried[:, small], tried[:, large] = ~goes_large, goes_large
    escalated = np.zeros(data.quality.shape, np.bool_)
    escalated[:, large] = (log == "cascade") & failed & ~audited & only
    known = tried | escalated | (audited | ~only)[:, None]
    answers = data.answers.take(known[data.answers.row, data.answers.tier])
    quality, cost, tokens = (
        np.where(known, values, np.nan) for values in (data.quality, data.cost_usd, data.output_tokens)
    )
    return replace(data, escalated=escalated, answers=answers, quality=quality, cost_usd=cost, output_tokens=tokens)


def _resampled(frozen: Frozen, log: Log, n_table: int, seed: int, times: int) -> list[Drawn]:
    rng = np.random.default_rng(1000 + seed)
    n = frozen.outcomes.n
    drawn = []
    for _ in range(times):
        order = rng.permutation(n)
        tune, population = order[: round(_TUNE * n_table)], order[round(_TUNE * n_table) :]
        policies = _listed(frozen, tune)
        sample = population[rng.integers(0, len(population), round(_CERTIFY * n_table))]
        found = certified(frozen, policies, sample, log, rng)
        drawn.append(_truth(frozen, policies, found, population, np.setdiff1d(population, sample)))
    return drawn


def _listed(frozen: Frozen, tune: Rows) -> list[int]:
    """Return which policies to test, in the order of rising price, spaced by what they save on the tune rows."""
    best = frozen.outcomes.best_tier
    bill, reference = frozen.outcomes.cost[tune, best].sum(), frozen.outcomes.quality[tune, best].sum()
    saving, loss = 1 - frozen.cost[:, tune].sum(axis=1) / bill, 1 - frozen.worth[:, tune].sum(axis=1) / reference
    chosen: list[int] = []
    for i in range(len(saving)):
        if chosen and saving[i] < saving[chosen[-1]] + _STEP:
            continue
        if loss[i] > _TOO_BOLD:
            break
        chosen.append(i)
    return chosen


def certified(
    frozen: Frozen, policies: list[int], sample: Rows, log: Log, rng: np.random.Generator
) -> Certificate | None:
    """Certify on a sample as far as a log shows it; None where too little is known for any certificate."""
    outcomes = Outcomes(frozen.outcomes.quality[sample], frozen.outcomes.cost[sample], best=frozen.outcomes.best_tier)
    tiers = tuple(f"tier {t}" for t in range(outcomes.n_tiers))
    audited = rng.random(len(sample)) < AUDIT_SHARE
    if log == "cascade":
        return _from_chains(frozen, policies, sample, audited, rng)
    known = np.arange(len(sample)) if log == "full pairs" else np.flatnonzero(audited)
    part = Outcomes(outcomes.quality[known], outcomes.cost[known], best=outcomes.best_tier)
    rows = sample[known]
    candidates = [Candidate(1.0 - i / 1000, float(i), frozen.worth[i, rows], frozen.cost[i, rows]) for i in policies]
    return certify(part, candidates, tiers=tiers, date=_NOW, rng=rng, allowed_loss=_LOSS, confidence=_SURE, draws=0)


def _from_chains(
    frozen: Frozen, policies: list[int], sample: Rows, audited: NDArray[np.bool_], rng: np.random.Generator
) -> Certificate:
    quality, best = frozen.outcomes.quality[sample].copy(), frozen.outcomes.best_tier
    small = 1 - best
    quality[~audited & (quality[:, small] >= 1.0), best] = np.nan
    # The log counts tiers from the one that chains begin with.
    order = np.array([small, best])
    log = PartialLog(
        quality=quality[:, order],
        predicted=frozen.adequacy[sample][:, order],
        audited=audited,
        audit_share=AUDIT_SHARE,
        first=np.tile([1.0, 0.0], (len(sample), 1)),
        tried=np.zeros(len(sample), np.intp),
        reveals="chain",
        best=1,
    )
    kept = [
        KeptColumn(1.0 - i / 1000, float(i), (frozen.kept[i, sample] == best).astype(np.intp), frozen.cost[i, sample])
        for i in policies
    ]
    usd = frozen.outcomes.cost[sample, best]
    return certify_partial(
        log,
        kept,
        best_cost=usd,
        tiers=("small", "large"),
        date=_NOW,
        rng=rng,
        allowed_loss=_LOSS,
        confidence=_SURE,
        draws=0,
    )


def _truth(frozen: Frozen, policies: list[int], found: Certificate | None, population: Rows, unseen: Rows) -> Drawn:
    if found is None or found.index == 0:
        return Drawn(0.0, 0.0, 0.0, False)
    worth, best = frozen.worth[policies[found.index - 1]], frozen.outcomes.quality[:, frozen.outcomes.best_tier]
    losses = [float(1 - worth[rows].sum() / best[rows].sum()) for rows in (population, unseen)]
    return Drawn(losses[0], losses[1], found.saving.value or 0.0, found.beyond_constant)


def _rows(log: Log, drawn: list[Drawn], n_certify: int) -> list[Row]:
    wrong = np.array([one.loss > _LOSS for one in drawn])
    unseen = np.array([one.loss_unseen > _LOSS for one in drawn])
    saving = np.array([one.saving for one in drawn])
    loss = float(np.mean([one.loss for one in drawn]))
    goals = {"must": 0.60, "aim": 0.70} if log == "full pairs" else {"must": None, "aim": None}
    share, spread = float(wrong.mean()), 1.96 * float(wrong.std() / np.sqrt(len(wrong)))
    low, high = (float(x) for x in np.quantile(saving, [0.025, 0.975]))
    return [
        Row("I", f"{log}: wrong", share, max(share - spread, 0.0), share + spread, len(drawn), 0.05, 0.05, "lower"),
        Row("I", f"{log}: certified saving", float(saving.mean()), low, high, n_certify, goals["must"], goals["aim"]),
        Row(
            "I",
            f"{log}: true loss",
            loss,
            None,
            None,
            len(drawn),
            better="lower",
        ),
        Row("I", f"{log}: above 3 % on rows not drawn", float(unseen.mean()), None, None, len(drawn), better="lower"),
    ]


def _text(found: dict[Log, list[Drawn]], data: Dataset) -> str:
    outcomes = Outcomes(data.quality, data.cost_usd, best=data.tiers.index("large"))
    oracle = curve_of(oracle_sweep(outcomes, rng=np.random.default_rng(0)), outcomes)
    quality, cost = outcomes.quality.mean(axis=0), outcomes.cost.mean(axis=0)
    small, large = data.tiers.index("small"), data.tiers.index("large")
    lines = [
        (
            log,
            f"{np.mean([one.loss > _LOSS for one in drawn]):.3f}",
            f"{np.mean([one.loss_unseen > _LOSS for one in drawn]):.3f}",
            f"{np.mean([one.saving for one in drawn]):.3f}",
            f"{100 * np.mean([one.loss for one in drawn]):.2f} %",
            f"{100 * np.mean([one.beyond for one in drawn]):.0f} %",
        )
        for log, drawn in found.items()
    ]
    header = ("certified from", "wrong", "above on rows not drawn", "saving", "true loss", "beyond constant")
    return "\n".join(
        (
            f"I. Certificates of at most 3 % loss, 95 % confidence, {RESAMPLES} resamples; logs are audited "
            f"{100 * AUDIT_SHARE:g} %",
            table(header, lines),
            f"g {1 - quality[small] / quality[large]:.3f}, r {cost[small] / cost[large]:.3f}; at 97 % a random mix "
            f"saves {random_cs(oracle, 0.97).value or 0:.3f}, the oracle {cs(oracle, 0.97).value or 0:.3f}",
        )
    )
