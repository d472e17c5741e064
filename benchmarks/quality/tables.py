"""One plain text table for a protocol that compares routers, and its rows for results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.contenders import CHOSEN, ORACLE, RANDOM, SHUFFLED
from benchmarks.quality.figures import APGR, CS97
from benchmarks.quality.protocols import Protocol
from benchmarks.quality.result import row_of
from benchmarks.results_file import Row, goal_text
from router_ml.cli.output import table
from router_ml_training.evaluation.metrics import Figure

__all__ = ["Measured", "rows_of", "text_of"]

SMALL, LARGE = "always small", "always large"
_CONTROLS = (ORACLE, "shuffled scores", SHUFFLED)


@dataclass(frozen=True, slots=True)
class Measured:
    """Everything measured under one protocol; the first of `metrics` is the headline.

    `by_router` holds every metric of every router, `facts` g, r and the qualities of the constants, `gain` the paired
    difference of the headline to the router named `gain_over`, `choices` what the competition kept, split by split.
    """

    protocol: Protocol
    metrics: tuple[str, ...]
    n_train: int
    n_test: int
    facts: Mapping[str, float]
    by_router: Mapping[str, Mapping[str, Figure]]
    gain_over: str
    gain: Figure
    choices: Sequence[str]

    @property
    def routers(self) -> list[str]:
        """Routers from what needs no learning to the best that could be, then the controls."""
        middle = [name for name in self.by_router if name not in (RANDOM, CHOSEN, *_CONTROLS)]
        last = [name for name in (CHOSEN, *_CONTROLS) if name in self.by_router]
        return [*([RANDOM] if RANDOM in self.by_router else []), *middle, *last]


def rows_of(measured: Measured) -> list[Row]:
    """Return the rows of results.json: the headlines first, then the gain, baselines and controls, then the facts."""
    protocol, n, metrics = measured.protocol, measured.n_test, measured.metrics
    rows = []
    for metric in metrics:
        must, aim = protocol.goals.get(metric, (None, None))
        rows.append(row_of(protocol.name, metric, measured.by_router[CHOSEN][metric], n, must=must, aim=aim))
    rows.append(row_of(protocol.name, _gain_name(measured), measured.gain, n))
    for router in measured.routers:
        if router != CHOSEN:
            figures = measured.by_router[router]
            rows += [row_of(protocol.name, f"{metric} of {router}", figures[metric], n) for metric in metrics]
    facts = measured.facts
    rows += [row_of(protocol.name, f"quality of {name}", Figure(facts[name]), n) for name in (SMALL, LARGE)]
    rows.append(row_of(protocol.name, "quality gap g", Figure(facts["g"]), n))
    rows.append(row_of(protocol.name, "cost ratio r", Figure(facts["r"]), n))
    return rows


def text_of(measured: Measured) -> str:
    """Return the table of one protocol."""
    protocol, facts, metrics = measured.protocol, measured.facts, measured.metrics
    cells: list[tuple[str | None, ...]] = [_constant(name, measured) for name in (SMALL, LARGE)]
    for router in measured.routers:
        figures = [cell for metric in metrics for cell in _cells(measured.by_router[router][metric])]
        cells.append((router, None, *figures))
    if APGR in metrics:
        cells += [(one.name, None, f"{one.apgr:.3f}", None, None, None) for one in protocol.published]
    kept = ", ".join(f"{name} {times}x" for name, times in Counter(measured.choices).most_common())
    headers = ("router", "quality", *(name for metric in metrics for name in (metric, "95 %")))
    return "\n".join(
        (
            f"{protocol.name}: {protocol.title} ({protocol.table}: {', then '.join(protocol.models.values())})",
            f"{measured.n_train:,} train and {measured.n_test:,} test rows; quality gap g {facts['g']:.1%}, "
            f"cost ratio r {facts['r']:.3f}; kept by the competition: {kept}",
            "",
            table(headers, cells),
            f"{_gain_name(measured)}: {_signed(measured.gain)} ({_range(measured.gain)}, paired)",
            *_goals(measured),
        )
    )


def _gain_name(measured: Measured) -> str:
    return f"{measured.metrics[0]} gain over {measured.gain_over}"


def _goals(measured: Measured) -> list[str]:
    judged = [row for row in rows_of(measured) if row.must is not None]
    return [f"{row.metric} {row.value:.4f}: must {row.must:g}, aim {row.aim:g}: {goal_text(row)}" for row in judged]


def _constant(name: str, measured: Measured) -> tuple[str | None, ...]:
    facts = measured.facts
    enough = facts[SMALL] >= 0.97 * facts[LARGE]
    savings = {SMALL: f"{1 - facts['r']:.3f}" if enough else None, LARGE: "0.000"}
    apgr = {SMALL: "0.000 at share 0", LARGE: "1.000 at share 1"}
    by_metric = {APGR: apgr[name], CS97: savings[name]}
    cells = [cell for metric in measured.metrics for cell in (by_metric.get(metric), None)]
    return name, f"{facts[name]:.4f}", *cells


def _cells(figure: Figure) -> tuple[str | None, str | None]:
    return None if figure.value is None else f"{figure.value:.4f}", _range(figure)


def _signed(figure: Figure) -> str:
    return "undefined" if figure.value is None else f"{figure.value:+.4f}"


def _range(figure: Figure) -> str | None:
    if figure.low is None and figure.high is None:
        return None
    low, high = ("?" if end is None else f"{end:.4f}" for end in (figure.low, figure.high))
    return f"{low} to {high}"
