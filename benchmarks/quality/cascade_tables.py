"""The tables of the cascade protocols, their rows for results.json, and the verdict on a ladder."""

from __future__ import annotations

import numpy as np

from benchmarks.quality.cascade_figures import ZERO, Figures
from benchmarks.quality.figures import Drawn, figure, gain
from benchmarks.quality.protocols import Protocol
from benchmarks.quality.result import lower_end, row_of
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table
from router_ml_training.evaluation.metrics import Figure

__all__ = [
    "CASCADE",
    "COMBINED",
    "LENGTH",
    "ORACLE",
    "PROMPT",
    "SHUFFLED",
    "ladder_rows",
    "ladder_text",
    "pair_rows",
    "pair_text",
]

COMBINED, PROMPT, CASCADE = "combined policy", "prompt only", "cascade, always judged"
LENGTH, SHUFFLED, ORACLE = "prompt length", "combined, shuffled scores", "oracle"
_OVER = "{} gain over the better of prompt only and cascade"
# The combined policy may lose no more than this against either of its parts.
_LOSS = -0.01


def pair_rows(protocol: Protocol, found: Figures) -> list[Row]:
    """Return the rows of a pair: headlines, what combining is worth, then baselines, controls and facts."""
    name, n = protocol.name, found.n
    rows = [
        row_of(name, metric, _figure(found, COMBINED, metric), n, must=must, aim=aim)
        for metric, (must, aim) in protocol.goals.items()
    ]
    headline = found.metrics[0]
    rows.append(row_of(name, _OVER.format(headline), _combining(found), n, must=_LOSS, aim=0.0))
    rows += [
        row_of(name, f"{metric} of {policy}", _figure(found, policy, metric), n)
        for policy in found.policies
        for metric in found.metrics
        if policy != COMBINED or metric not in protocol.goals
    ]
    return rows + _facts(name, found)


def ladder_rows(protocol: Protocol, found: Figures) -> list[Row]:
    """Return the rows of a ladder: lower ends of the gains, the gains, then every policy's figures."""
    where, n = protocol.table, found.n
    rows: list[Row] = []
    for metric in found.metrics:
        name = f"{where}: {metric} gain over zero router and shuffled scores"
        rows.append(lower_end(protocol.name, name, _earned(found, metric), n, must=0.0))
        rows.append(row_of(protocol.name, name, _earned(found, metric), n))
    rows += [
        row_of(protocol.name, f"{where}: {metric} of {policy}", _figure(found, policy, metric), n)
        for policy in found.policies
        for metric in found.metrics
    ]
    return rows + _facts(protocol.name, found, f"{where}: ")


def pair_text(protocol: Protocol, found: Figures) -> str:
    """Return the table of a pair."""
    headline = found.metrics[0]
    lines = [
        f"{_OVER.format(headline)}: {_said(_combining(found))}, paired",
        *(
            f"{row.metric} {row.value:.3f}: must {row.must:g}, aim {row.aim:g}: {goal_text(row)}"
            for row in pair_rows(protocol, found)
            if row.must is not None and row.value is not None
        ),
    ]
    return "\n".join((_head(protocol, found), "", _table(found), *lines))


def ladder_text(protocol: Protocol, found: Figures) -> str:
    """Return the table of a ladder, with the verdict on each metric."""
    lines = []
    for metric in found.metrics:
        earned = _earned(found, metric)
        verdict = "route" if earned.low is not None and earned.low > 0 else "keep the constant mix"
        lines.append(f"{metric} gain over the better of zero router and shuffled scores: {_said(earned)}: {verdict}")
    return "\n".join((_head(protocol, found), "", _table(found), *lines))


def _combining(found: Figures) -> Figure:
    headline = found.metrics[0]
    return _over(found, headline, (PROMPT, CASCADE))


def _earned(found: Figures, metric: str) -> Figure:
    return _over(found, metric, (ZERO, SHUFFLED))


def _over(found: Figures, metric: str, rivals: tuple[str, str]) -> Figure:
    """Return the paired gain of the combined policy over the better of two, which may be another one in each draw."""
    one, other = (found.drawn[rival, metric] for rival in rivals)
    better = Drawn(float(np.fmax(one.value, other.value)), np.fmax(one.draws, other.draws))
    return gain(found.drawn[COMBINED, metric], better)


def _figure(found: Figures, policy: str, metric: str) -> Figure:
    return figure(found.drawn[policy, metric])


def _facts(protocol: str, found: Figures, where: str = "") -> list[Row]:
    return [
        row_of(protocol, f"{where}quality gap g", Figure(found.quality_gap), found.n),
        row_of(protocol, f"{where}cost ratio r", Figure(found.cost_ratio), found.n),
    ]


def _head(protocol: Protocol, found: Figures) -> str:
    tiers = ", ".join(protocol.models.values())
    return (
        f"{protocol.name}: {protocol.title} ({protocol.table}: {tiers})\n"
        f"{found.n:,} test rows of 5 folds; quality gap g {found.quality_gap:.1%}, cost ratio r {found.cost_ratio:.3f}"
    )


def _table(found: Figures) -> str:
    headers = ["policy", *(part for metric in found.metrics for part in (metric, "95 %"))]
    rows = []
    for policy in found.policies:
        cells: list[str | None] = [policy]
        for metric in found.metrics:
            one = _figure(found, policy, metric)
            cells += [None if one.value is None else f"{one.value:.4f}", _range(one)]
        rows.append(cells)
    return table(headers, rows)


def _said(one: Figure) -> str:
    return "undefined" if one.value is None else f"{one.value:+.4f} ({_range(one)})"


def _range(one: Figure) -> str | None:
    if one.low is None and one.high is None:
        return None
    low, high = ("?" if end is None else f"{end:.4f}" for end in (one.low, one.high))
    return f"{low} to {high}"
