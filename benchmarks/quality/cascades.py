"""Protocols D, E, F, HB and H: what judging answers is worth, every attempt paid for.

Per fold the heads are cross-fitted on the train rows, the verifier on top of them, and everything but the knob is fixed
there; test rows of all folds are pooled. The knob of the combined policy is the shadow price, at 2,000 values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.cascade_curves import (
    N_PRICES,
    alone,
    always_judged,
    attempts,
    combined,
    embedded,
    pooled,
    states,
    sweep_of,
)
from benchmarks.quality.cascade_figures import AIQ, CS97, CS99, CS100, drawn_figures
from benchmarks.quality.cascade_scores import Fold, fit_fold, plan_tiers
from benchmarks.quality.cascade_tables import (
    CASCADE,
    COMBINED,
    LENGTH,
    ORACLE,
    PROMPT,
    SHUFFLED,
    ladder_rows,
    ladder_text,
    pair_rows,
    pair_text,
)
from benchmarks.quality.protocols import Protocol, ladder_of, read, splits
from benchmarks.quality.result import Result
from benchmarks.results_file import Row
from router_ml.errors import DataError
from router_ml.features import DENSE_NAMES
from router_ml_training.dataset import Dataset
from router_ml_training.evaluation.baselines import oracle_sweep
from router_ml_training.evaluation.curves import Sweep, price_sweep, share_sweep
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.frontier import price_grid
from router_ml_training.plans import Judged
from router_ml_training.simulate.outcomes import load_outcomes

__all__ = ["run"]

F64: TypeAlias = NDArray[np.float64]

_MIXTRAL, _GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
_LENGTH = DENSE_NAMES.index("text.log_chars")


@dataclass(frozen=True, slots=True)
class _Ladder(Protocol):
    """A protocol of more tiers, each called what its model is called; the cheapest is `small`, the dearest `large`."""

    between: tuple[str, ...] = ()

    @property
    def models(self) -> Mapping[str, str]:
        """Tier name to model."""
        return {name: name for name in (self.small, *self.between, self.large)}


_PAIRS = (
    Protocol(
        "D",
        "MMLU-Pro, prompt and answer",
        "mmlu_pro",
        "gemini-1.5-flash-002",
        "gemini-1.5-pro-002",
        "folds",
        goals={CS97: (0.76, 0.82), CS100: (0.57, 0.65)},
    ),
    Protocol("E", "GSM8K, prompt and answer", "routellm_gsm8k", _MIXTRAL, _GPT4, "folds", goals={CS97: (0.48, 0.60)}),
    Protocol(
        "F",
        "GSM8K in JSON, prompt and answer",
        "zeroeval_gsm",
        "Meta-Llama-3.1-8B-Instruct",
        "claude-3-5-sonnet-20241022",
        "folds",
        goals={CS97: (0.52, 0.65)},
    ),
    Protocol("HB", "HelloBench, graded, prompt and answer", "hellobench", "qwen2_7b", "gpt4o_0806", "folds"),
)
_MMLU_PRO, _HELLOBENCH = (
    _Ladder(
        "H",
        "MMLU-Pro, all 8 models",
        "mmlu_pro",
        "Phi-3-mini-4k-instruct",
        "gemini-1.5-pro-002",
        "folds",
        goals={AIQ: (0.0, 0.0), CS97: (0.0, 0.0)},
        between=(
            "Meta-Llama-3.1-8B-Instruct",
            "gemini-1.5-flash-002",
            "Mixtral-8x7B-Instruct-v0.1",
            "Meta-Llama-3.1-70B-Instruct",
            "c4ai-command-r-v01",
            "jamba-1.5-large",
        ),
    ),
    _Ladder(
        "H",
        "HelloBench, all 10 models, graded",
        "hellobench",
        "qwen2_7b",
        "claude35",
        "folds",
        goals={AIQ: (0.0, 0.0), CS99: (0.0, 0.0), CS100: (0.0, 0.0)},
        between=(
            "llama31_8b",
            "mistral_7b_v02",
            "deepseek_chat_api",
            "llama31_70b",
            "qwen2_72b",
            "mistral_large_api",
            "gemini15_pro",
            "gpt4o_0806",
        ),
    ),
)


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Run all protocols about judged answers.

    Args:
        folder: The outcome tables.
        draws: Bootstrap draws.

    Raises:
        RouterError: When a table cannot be used.
    """
    rows: list[Row] = []
    texts: list[str] = []
    for protocol in _PAIRS:
        case = fitted(protocol, folder)
        found = drawn_figures(case.sweeps, attempts(case.outcomes), (CS97, CS99, CS100), draws=draws)
        rows += pair_rows(protocol, found)
        texts.append(pair_text(protocol, found))
        if protocol.table == _MMLU_PRO.table:
            widened, outcomes = among_all(case, folder)
            found = drawn_figures(widened, outcomes, tuple(_MMLU_PRO.goals), draws=draws)
            rows += ladder_rows(_MMLU_PRO, found)
            texts.append(ladder_text(_MMLU_PRO, found))
    case = fitted(_HELLOBENCH, folder)
    found = drawn_figures(case.sweeps, attempts(case.outcomes), tuple(_HELLOBENCH.goals), draws=draws)
    rows += ladder_rows(_HELLOBENCH, found)
    texts.append(ladder_text(_HELLOBENCH, found))
    return Result((*(one.name for one in _PAIRS), "H"), "\n\n".join(texts), tuple(rows))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The pooled test rows of a protocol: their numbers in the table, the tiers' outcomes, every policy's sweep.

    `trains` are the numbers of the rows that each fold learned from.
    """

    protocol: Protocol
    rows: NDArray[np.int64]
    trains: tuple[NDArray[np.int64], ...]
    outcomes: Outcomes
    sweeps: Mapping[str, Sweep]


def fitted(protocol: Protocol, folder: Path) -> Case:
    """Fit every fold of a protocol and sweep every policy over the pooled test rows.

    Raises:
        RouterError: When its table cannot be used.
    """
    table = read(protocol, folder)
    ladder = ladder_of(protocol, folder)
    folds = [fit_fold(table.dataset, ladder, split) for split in splits(protocol, table)]
    rows = np.concatenate([fold.split.test for fold in folds])
    test = table.dataset.rows(rows)
    outcomes = Outcomes(test.quality, test.cost_usd)
    sweeps = _sweeps(table.dataset, folds, outcomes, test.dense[:, _LENGTH].astype(np.float64))
    return Case(protocol, rows, tuple(fold.split.train for fold in folds), outcomes, sweeps)


def among_all(pair: Case, folder: Path) -> tuple[dict[str, Sweep], Outcomes]:
    """Return the sweeps of a pair as those of the whole ladder, of which only the pair is worth routing between.

    On the train rows of every fold the other tiers are off the hull, or too dear to be tried before the next.

    Raises:
        DataError: When the train rows of some fold say otherwise.
    """
    table = load_outcomes(folder / f"{_MMLU_PRO.table}.parquet", _MMLU_PRO.models)
    chosen = [table.models.index(model) for model in (pair.protocol.small, pair.protocol.large)]
    for train in pair.trains:
        planned = plan_tiers(table.quality[train], table.cost_usd[train])
        if planned != sorted(chosen):
            names = ", ".join(table.models[tier] for tier in planned)
            raise DataError(f"{_MMLU_PRO.table}: the ladder is worth routing between {names}; fit those tiers instead")
    quality, cost = table.quality[pair.rows], table.cost_usd[pair.rows]
    plan = cost[:, chosen[0]] + cost[:, chosen[1]]
    outcomes = Outcomes(
        np.column_stack([quality, quality[:, chosen[1]]]), np.column_stack([cost, plan]), tiers=len(table.tiers)
    )
    # A pair's columns: its tiers, the plan over both, and one that nobody takes.
    columns = np.array([*chosen, len(table.tiers), len(table.tiers)], np.intp)
    kept = {name: embedded(sweep, columns) for name, sweep in pair.sweeps.items() if name not in (CASCADE, ORACLE)}
    return {**kept, ORACLE: oracle_sweep(outcomes, rng=np.random.default_rng(0))}, outcomes


def _sweeps(dataset: Dataset, folds: list[Fold], outcomes: Outcomes, length: F64) -> dict[str, Sweep]:
    rng = np.random.default_rng(0)
    k, best = outcomes.n_tiers, outcomes.best_tier
    rows = _together([fold.test for fold in folds])
    prices = price_grid(*rows.opinions(), N_PRICES)[::-1]
    policies = [combined(fold.train, _outcomes(dataset, fold.split.train, best), fold.test) for fold in folds]
    judged = states(prices, pooled(policies), k)
    sweeps = {LENGTH: share_sweep(length, rng=rng, large=best)}
    if k == 2:
        sweeps[PROMPT] = price_sweep(rows.adequacy, rows.cost, rng=rng, floor=-np.inf)
        # Column 2 is the plan "small, then large".
        sweeps[CASCADE] = share_sweep(always_judged(rows), rng=rng, large=2)
    else:
        sweeps[PROMPT] = sweep_of(prices, states(prices, alone(rows), k), best, rng)
    sweeps[COMBINED] = sweep_of(prices, judged, best, rng)
    sweeps[SHUFFLED] = sweep_of(prices, judged[:, rng.permutation(outcomes.n)], best, rng)
    sweeps[ORACLE] = oracle_sweep(outcomes, rng=rng)
    return sweeps


def _outcomes(dataset: Dataset, rows: NDArray[np.int64], best: int) -> Outcomes:
    return Outcomes(dataset.quality[rows], dataset.cost_usd[rows], best=best)


def _together(parts: list[Judged]) -> Judged:
    # Only scores and costs are read from the pooled rows: each fold values plans with its own spread.
    adequacy, cost, posterior, later = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("adequacy", "cost", "posterior", "later")
    )
    return Judged(adequacy, cost, posterior, parts[0].spread, later)
