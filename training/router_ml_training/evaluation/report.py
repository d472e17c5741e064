"""One evaluation as a page for people: headline, strategies, curves, calibration, and the facts behind them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING

from router_ml.cli.output import table
from router_ml.registry import require
from router_ml_training.evaluation.canvas import COLOURS, DARK_COLOURS, Picture, tier_colours
from router_ml_training.evaluation.certificate_record import Certification
from router_ml_training.evaluation.compare import Choice
from router_ml_training.evaluation.metrics import TARGETS, Figure
from router_ml_training.evaluation.strategies import Strategy

if TYPE_CHECKING:
    from router_ml_training.gates import GateLine

__all__ = ["DataFacts", "ModelFacts", "ReportData", "Slice", "headline", "render_report", "summary_table"]

_LABELS = {
    "apgr": "APGR (random 0.5)",
    "cpt_50": "CPT(50 %), share of large calls",
    "cpt_80": "CPT(80 %), share of large calls",
    "aiq": "AIQ",
    "zero_aiq": "AIQ of the zero router",
    "qnc": "QNC, cost at the best tier's quality",
}


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What the evaluation was made on.

    Args:
        description: One phrase, such as the file or the workload it came from.
        digest: sha256 of the data.
        n_train: Requests the model was fitted on.
        n_test: Requests the figures come from.
        first: Earliest request, if requests have times.
        last: Latest request.
        simulated: Whether any of it was made up; stamped on the page.
        more: Further facts, name to text.
    """

    description: str
    digest: str
    n_train: int
    n_test: int
    first: datetime | None = None
    last: datetime | None = None
    simulated: bool = False
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What was evaluated.

    Args:
        learner: Name of the learner.
        version: Version of the bundle.
        run_id: MLflow run, if tracked.
        more: Further facts, name to text.
    """

    learner: str
    version: str
    run_id: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slice:
    """The router on one part of the traffic, against always the best tier on that part."""

    name: str
    n: int
    quality_kept: Figure
    saving: Figure


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything a report says.

    Args:
        title: Heading of the page.
        created: When it was made.
        tiers: Names of the tiers, in ladder order.
        columns: Names of the columns that `Strategy.share` counts; the tiers, then any plans.
        best_tier: Tier that quality is measured against.
        quality: Quality asked for, relative to the best tier.
        router: The router at its operating point.
        others: always small, always large, random mix at the same cost, oracle.
        figures: The router's curve metrics by name (`curve_figures`).
        oracle: The oracle's curve metrics by name; may be empty.
        vacuous: Why the claim takes no learning (`vacuity`); None when it does.
        choice: How the learner was chosen; None when nothing was compared.
        calibration: Per tier, `ece`, `brier`, `auc` (`calibration_figures`).
        pictures: Drawn in this order.
        data: What it was evaluated on.
        model: What was evaluated.
        slices: Parts of the traffic.
        notes: Further sentences for the reader.
        cautions: What is to be known before any figure is believed; they stand over the figures.
        estimated: Whether the model's own estimates stand in for outcomes that nobody knows.
        certification: What is proven on rows that nothing else has touched; None when nothing was to be.
        gates: The gates before promotion, in the order of the table; none where nothing was to be promoted.
    """

    title: str
    created: datetime
    tiers: tuple[str, ...]
    columns: tuple[str, ...]
    best_tier: str
    quality: float
    router: Strategy
    others: tuple[Strategy, ...]
    figures: Mapping[str, Figure]
    oracle: Mapping[str, Figure]
    vacuous: str | None
    choice: Choice | None
    calibration: Mapping[str, Mapping[str, Figure]]
    pictures: tuple[Picture, ...]
    data: DataFacts
    model: ModelFacts
    slices: tuple[Slice, ...] = ()
    notes: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    estimated: bool = False
    certification: Certification | None = None
    gates: tuple[GateLine, ...] = ()


def headline(data: ReportData) -> str:
    """The result in one sentence, without softening; what is proven comes before what was measured."""
    if data.certification is not None and not data.certification.beyond_constant:
        one = data.certification.certificate
        return "Nothing is proven about this router" if one is None else "Keep the constant model: no saving is proven"
    return _measured(data)


def _measured(data: ReportData) -> str:
    if data.choice is not None and data.choice.keep_constant:
        return "Keep the constant model"
    saving, kept = data.router.saving.value, data.router.quality_kept.value
    if saving is None or kept is None:
        return f"No claim can be made: {data.router.saving.reason or data.router.quality_kept.reason}"
    change = f"Saves {_percent(saving)}" if saving >= 0 else f"Costs {_percent(-saving)} more"
    return f"{change} and keeps {_percent(kept)} of the quality of always {data.best_tier}"


def render_report(data: ReportData) -> str:
    """The report as one self-contained HTML page: no script, no external address, light and dark.

    Args:
        data: What it says.
    """
    jinja2 = require("jinja2", extra="training", why="to write reports")
    markupsafe = require("markupsafe", extra="training", why="to write reports")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=_percent, number=_number, figure=_figure, range=_range, when=_when)
    environment.filters["inline"] = lambda svg: markupsafe.Markup(_inline(svg))
    environment.filters["address"] = _address
    environment.globals["number"] = _number
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    n = len(data.columns)
    page: str = template.render(
        data=data,
        headline=headline(data),
        constant=data.choice is not None and data.choice.keep_constant,
        missed=_missed(data),
        measured_headline=_measured(data),
        unproven=data.certification is not None and not data.certification.beyond_constant,
        escalates=any(row.escalation_rate is not None for row in (data.router, *data.others)),
        savings=_savings(data),
        metrics=[(_LABELS[name], data.figures[name]) for name in _LABELS if name in data.figures],
        colours=_css(COLOURS, tier_colours(n), tier_colours(2)),
        dark_colours=_css(DARK_COLOURS, tier_colours(n, dark=True), tier_colours(2, dark=True)),
        mix=next((other for other in data.others if other.name.startswith("random")), None),
    )
    return page


def summary_table(data: ReportData) -> str:
    """The result as a small plain-text table for a terminal."""
    header = ["strategy", "USD per 1k", "quality", "kept", "saving", *data.columns, "escalated"]
    rows = [
        [
            strategy.name,
            f"{strategy.cost_per_1k_usd:.4g}",
            f"{strategy.quality:.4f}",
            *(None if value is None else _percent(value) for value in _relative(strategy)),
            *(_percent(share) for share in strategy.share),
            None if strategy.escalation_rate is None else _percent(strategy.escalation_rate),
        ]
        for strategy in (data.router, *data.others)
    ]
    gap, ratio = data.figures.get("quality_gap"), data.figures.get("cost_ratio")
    said = [] if data.certification is None else [data.certification.verdict]
    said += [
        (f"Measured, not proven: {_lowered(_measured(data))}" if said else _measured(data))
        + (" (estimated)" if data.estimated else "")
        + (" (simulated data)" if data.data.simulated else ""),
        f"quality gap g {_figure(gap)}, cost ratio r {_figure(ratio, _number)} on {data.data.n_test:,} test requests",
    ]
    if data.vacuous:
        said.append(f"vacuous claim: {data.vacuous}")
    missed = _missed(data)
    said += [missed] if missed else []
    return "\n".join([*said, *data.cautions, *data.notes, "", table(header, rows)])


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _relative(strategy: Strategy) -> tuple[float | None, float | None]:
    return strategy.quality_kept.value, strategy.saving.value


def _missed(data: ReportData) -> str | None:
    kept = data.router.quality_kept.value
    if kept is None or kept >= data.quality:
        return None
    return f"That is below the {_percent(data.quality)} asked for."


def _savings(data: ReportData) -> list[tuple[str, Figure | None, Figure | None, Figure | None]]:
    """Per target quality: saving of the router, of the random mix, of the oracle."""
    rows = []
    for target in TARGETS:
        key = f"{100 * target:g}"
        found = (data.figures.get(f"cs_{key}"), data.figures.get(f"random_cs_{key}"), data.oracle.get(f"cs_{key}"))
        if any(found):
            rows.append((f"{key} %", *found))
    return rows


def _css(colours: Mapping[str, str], tiers: list[str], ends: list[str]) -> str:
    shades = {f"tier-{i}": shade for i, shade in enumerate(tiers)}
    named = {**colours, **shades, "tier-low": ends[0], "tier-high": ends[1]}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


def _inline(svg: str) -> str:
    """An SVG as HTML takes it: without the namespace address, and without a style rule that would reach the page."""
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "")
    return re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)


def _address(text: str) -> str:
    """CSV text as an address that holds it, so that a page without a script can offer it as a file."""
    return "data:text/csv;base64," + base64.b64encode(text.encode()).decode()


def _percent(value: float) -> str:
    return f"{round(100 * value, 1) + 0.0:.1f} %"  # + 0.0: never "-0.0 %"


def _number(value: float) -> str:
    """Four decimals; three significant digits when that would hide a small number."""
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.01 else f"{value:.3g}"


def _figure(figure: Figure | None, shown: Callable[[float], str] = _percent) -> str:
    return "-" if figure is None or figure.value is None else shown(figure.value)


def _range(figure: Figure | None, shown: Callable[[float], str] = _percent) -> str:
    """An interval such as "85.0 to 88.9 %"; an end that undefined draws decide is "?"."""
    if figure is None or (figure.low is None and figure.high is None):
        return ""
    low, high = ("?" if end is None else shown(end) for end in (figure.low, figure.high))
    return "" if low == high else f"{low.removesuffix(' %')} to {high}"


def _when(moment: datetime | None) -> str:
    return "-" if moment is None else moment.strftime("%Y-%m-%d %H:%M %Z").strip()
