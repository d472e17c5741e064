"""Protocol M: the recipe of the default bundle on a table that it has not seen, between models it has never heard of.

Every table of over 1,000 prompts is left out of what the recipe learns from, with its sister: both tables of GSM8K go
together, and so do MMLU and MMLU-Pro. Then the left-out table is routed between its cheapest and its best model.

Gain over random at equal cost is measured twice. In calls, where every call of the dear model costs the same, it is
APGR - 0.5: a random router has 0.5. In USD, it is how far the curve of quality over cost lies above the straight line
from always-cheapest to always-best, the random mix, on average over all costs between the two; its unit is quality.
The curve is that of the policy as its price per call or per USD is lowered: by what a request gains where all calls
cost the same, by what it gains per USD that it is expected to cost at the pair's list prices where they do not. Both
musts are about the lower end of the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.protocols import Protocol, ladder_of
from benchmarks.quality.result import Result, lower_end, row_of
from benchmarks.results_file import Row
from router_ml.cli.output import table
from router_ml_training.dataset import Dataset, build_dataset
from router_ml_training.default_bundle import PUBLIC, learn_from, public_tables
from router_ml_training.evaluation.bootstrap import statistic_figure
from router_ml_training.evaluation.curves import Sweep, price_sweep, share_sweep
from router_ml_training.evaluation.metrics import METRICS, Figure
from router_ml_training.evaluation.outcomes import Outcomes, Points
from router_ml_training.frontier import expected_cost
from router_ml_training.simulate.outcomes import load_outcomes
from router_ml_training.simulate.policies import simulate_log

__all__ = ["LeftOut", "Measured", "cost_gain", "run"]

F64: TypeAlias = NDArray[np.float64]

_MUST, _AIM = -0.01, 0.0
_CALLS, _USD = "APGR - 0.5", "quality gained at equal cost in USD"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A table that is measured on, its cheapest and its best model, and the tables that are not learned from then."""

    name: str
    small: str
    large: str
    without: frozenset[str]


_MMLU = frozenset({"routellm_mmlu", "mmlu_pro"})
_GSM8K = frozenset({"routellm_gsm8k", "zeroeval_gsm"})
_MIXTRAL, _GPT4 = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
LEFT_OUT = (
    LeftOut("routellm_mmlu", _MIXTRAL, _GPT4, _MMLU),
    LeftOut("mmlu_pro", "Phi-3-mini-4k-instruct", "gemini-1.5-pro-002", _MMLU),
    LeftOut("routellm_gsm8k", _MIXTRAL, _GPT4, _GSM8K),
    LeftOut("zeroeval_gsm", "Meta-Llama-3.1-8B-Instruct", "claude-3-5-sonnet-20241022", _GSM8K),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of one left-out table; `g` and `r` are those of its pair of models."""

    table: LeftOut
    n: int
    learner: str
    g: float
    r: float
    calls: Figure
    usd: Figure
    oracle: float


def run(folder: Path, *, draws: int = 1000) -> Result:
    """Learn the recipe without each group of tables, and measure it on them.

    Raises:
        DataError: When a table is missing.
    """
    tables = dict(zip((one.name for one in PUBLIC), public_tables(folder), strict=True))
    found: list[Measured] = []
    for without in (_MMLU, _GSM8K):
        trained, _ = learn_from([kept for name, kept in tables.items() if name not in without])
        model = trained.competition.winner
        for left_out in (one for one in LEFT_OUT if one.without == without):
            dataset = _read(folder, left_out)
            adequacy = model.predict(model.encoder.encode(dataset))
            tokens = trained.tokens.predict(model.encoder.encode(dataset))
            cost = expected_cost(dataset, tokens, ladder_of(_protocol(left_out), folder))
            found.append(_measured(left_out, dataset, adequacy, cost, trained.learner, draws))
    return Result(("M",), _text(found), tuple(row for one in found for row in _rows(one)))


def cost_gain(points: Points) -> F64:
    """Return the mean height of curves (b, m) above the random mix, over the costs from their first to last point."""
    cost = points.cost - points.cost[:, :1]
    quality = points.quality - points.quality[:, :1]
    area = ((quality[:, 1:] + quality[:, :-1]) / 2 * np.diff(cost, axis=1)).sum(axis=1)
    gain: F64 = area / cost[:, -1] - quality[:, -1] / 2
    return gain


def _read(folder: Path, left_out: LeftOut) -> Dataset:
    pair = load_outcomes(folder / f"{left_out.name}.parquet", {"small": left_out.small, "large": left_out.large})
    return build_dataset(simulate_log(pair, "full", rng=np.random.default_rng(0)), pair.tiers)


def _protocol(left_out: LeftOut) -> Protocol:
    return Protocol("M", "cold start", left_out.name, left_out.small, left_out.large, "folds")


def _measured(
    left_out: LeftOut, dataset: Dataset, adequacy: F64, expected_usd: F64, learner: str, draws: int
) -> Measured:
    outcomes = Outcomes(dataset.quality, dataset.cost_usd, best=1)
    quality, cost = outcomes.quality.mean(axis=0), outcomes.cost.mean(axis=0)
    by_need = share_sweep(adequacy[:, 1] - adequacy[:, 0], rng=np.random.default_rng(0))
    by_usd = price_sweep(adequacy, expected_usd, rng=np.random.default_rng(0), floor=-np.inf)

    def figure(swept: Sweep, *, usd: bool, draws: int) -> Figure:
        def of(weights: F64) -> F64:
            points = swept.trace(outcomes, weights)
            return cost_gain(points) if usd else METRICS["apgr"].values(points) - 0.5

        return statistic_figure(of, len(dataset), rng=np.random.default_rng(0), draws=draws)

    best = share_sweep(outcomes.quality[:, 1] - outcomes.quality[:, 0], rng=np.random.default_rng(0))
    return Measured(
        left_out,
        len(dataset),
        learner,
        g=float(1 - quality[0] / quality[1]),
        r=float(cost[0] / cost[1]),
        calls=figure(by_need, usd=False, draws=draws),
        usd=figure(by_usd, usd=True, draws=draws),
        oracle=figure(best, usd=False, draws=0).value or 0.0,
    )


def _rows(one: Measured) -> list[Row]:
    rows = []
    for metric, figure in ((_CALLS, one.calls), (_USD, one.usd)):
        name = f"{metric} on {one.table.name}"
        rows += [row_of("M", name, figure, one.n), lower_end("M", name, figure, one.n, must=_MUST, aim=_AIM)]
    facts = {"quality gap g": one.g, "cost ratio r": one.r, f"{_CALLS} of the oracle": one.oracle}
    return rows + [row_of("M", f"{name} on {one.table.name}", Figure(value), one.n) for name, value in facts.items()]


def _text(found: Sequence[Measured]) -> str:
    headers = ("left out", "prompts", "learner", "g", "r", _CALLS, "95 %", "gain in USD", "95 %", "oracle")
    cells = [
        (
            one.table.name,
            f"{one.n:,}",
            one.learner,
            f"{one.g:.3f}",
            f"{one.r:.3f}",
            *_cells(one.calls),
            *_cells(one.usd),
            f"{one.oracle:+.3f}",
        )
        for one in found
    ]
    title = "M. Cold start: the default bundle's recipe without the table and its sister, cheapest against best model"
    return f"{title}\n{table(headers, cells)}\nRandom has 0 in both; the oracle's is in calls."


def _cells(figure: Figure) -> tuple[str, str]:
    ends = [float("nan") if end is None else end for end in (figure.low, figure.high)]
    return f"{figure.value or 0.0:+.4f}", f"{ends[0]:+.4f} to {ends[1]:+.4f}"
