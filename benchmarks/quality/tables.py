"""One plain text table per protocol, and its rows for results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.contenders import CHOSEN, LENGTH, ORACLE, RANDOM, SHUFFLED
from benchmarks.quality.figures import APGR, CS97
from benchmarks.quality.protocols import Protocol
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table
from router_ml_training.evaluation.metrics import Figure

__all__ = ["Result", "rows_of", "text_of"]

SMALL, LARGE = "always small", "always large"
GAIN = f"APGR gain over {LENGTH}"


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured under one protocol; `by_router` holds APGR and CS(0.97), `facts` g, r and constants."""

    protocol: Protocol
    n_train: int
    n_test: int
    facts: Mapping[str, float]
    by_router: Mapping[str, Mapping[str, Figure]]
    gain: Figure
    choices: Sequence[str]

    @property
    def routers(self) -> list[str]:
        """Routers from the baselines to the best that could be."""
        ours = [name for name in self.by_router if name not in (RANDOM, LENGTH, CHOSEN, SHUFFLED, ORACLE)]
        return [RANDOM, LENGTH, *ours, CHOSEN, ORACLE, SHUFFLED]


def rows_of(result: Result) -> list[Row]:
    """Return the rows of results.json: the headline first, then the gain, baselines and controls, then the facts."""
    protocol = result.protocol
    rows = [
        _row(result, metric, result.by_router[CHOSEN][metric], protocol.goals.get(metric)) for metric in (APGR, CS97)
    ]
    rows.append(_row(result, GAIN, result.gain, None))
    for router in result.routers:
        if router != CHOSEN:
            rows += [_row(result, f"{m} of {router}", result.by_router[router][m], None) for m in (APGR, CS97)]
    for name in (SMALL, LARGE):
        rows.append(_row(result, f"quality of {name}", Figure(result.facts[name]), None))
    rows.append(_row(result, "quality gap g", Figure(result.facts["g"]), None))
    rows.append(_row(result, "cost ratio r", Figure(result.facts["r"]), None))
    return rows


def text_of(result: Result) -> str:
    """Return the table of one protocol."""
    protocol, facts = result.protocol, result.facts
    cells: list[tuple[str | None, ...]] = [_constant(name, result) for name in (SMALL, LARGE)]
    for router in result.routers:
        by_metric = result.by_router[router]
        cells.append((router, None, *_cells(by_metric[APGR]), *_cells(by_metric[CS97])))
    cells += [(one.name, None, f"{one.apgr:.3f}", None, None, None) for one in protocol.published]
    kept = ", ".join(f"{name} {times}x" for name, times in Counter(result.choices).most_common())
    return "\n".join(
        (
            f"{protocol.name}: {protocol.title} ({protocol.table}: {protocol.small}, then {protocol.large})",
            f"{result.n_train:,} train and {result.n_test:,} test rows; quality gap g {facts['g']:.1%}, "
            f"cost ratio r {facts['r']:.3f}; kept by the competition: {kept}",
            "",
            table(("router", "quality", APGR, "95 %", CS97, "95 %"), cells),
            f"{GAIN}: {result.gain.value:+.3f} ({_range(result.gain)}, paired)",
            *_goals(result),
        )
    )


def _goals(result: Result) -> list[str]:
    judged = [row for row in rows_of(result) if row.must is not None]
    return [f"{row.metric} {row.value:.3f}: must {row.must:g}, aim {row.aim:g}: {goal_text(row)}" for row in judged]


def _constant(name: str, result: Result) -> tuple[str | None, ...]:
    quality = f"{result.facts[name]:.4f}"
    if name == LARGE:
        return name, quality, "1.000 at share 1", None, "0.000", None
    enough = result.facts[SMALL] >= 0.97 * result.facts[LARGE]
    return name, quality, "0.000 at share 0", None, f"{1 - result.facts['r']:.3f}" if enough else None, None


def _cells(figure: Figure) -> tuple[str | None, str | None]:
    return None if figure.value is None else f"{figure.value:.3f}", _range(figure)


def _range(figure: Figure) -> str | None:
    if figure.low is None and figure.high is None:
        return None
    low, high = ("?" if end is None else f"{end:.3f}" for end in (figure.low, figure.high))
    return f"{low} to {high}"


def _row(result: Result, metric: str, figure: Figure, goal: tuple[float, float] | None) -> Row:
    must, aim = goal or (None, None)
    return Row(result.protocol.name, metric, figure.value, figure.low, figure.high, result.n_test, must, aim)
