"""Figures and the report: self-contained, honest, and saying every number they are given."""

import base64
import csv
import io
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from router_ml_training.evaluation.baselines import always, baseline_sweeps, oracle_choice
from router_ml_training.evaluation.bootstrap import curve_figures
from router_ml_training.evaluation.calibration_metrics import calibration_figures, reliability
from router_ml_training.evaluation.canvas import Picture, tier_colours
from router_ml_training.evaluation.compare import one_standard_error
from router_ml_training.evaluation.curves import curve_of, price_sweep
from router_ml_training.evaluation.figures import cost_quality, reliability_diagram, score_histogram, tier_mix
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.outcomes import Outcomes
from router_ml_training.evaluation.report import (
    DataFacts,
    ModelFacts,
    ReportData,
    Slice,
    headline,
    render_report,
    summary_table,
)
from router_ml_training.evaluation.strategies import random_mix, strategy_of
from router_ml_training.gates import GateLine

TIERS = ("small", "medium", "large")


def make_pictures(outcomes: Outcomes, adequacy: np.ndarray, *, simulated: bool) -> tuple[Picture, ...]:
    rng = np.random.default_rng(0)
    curve = curve_of(price_sweep(adequacy, outcomes.cost, rng=rng), outcomes)
    sweeps = baseline_sweeps(outcomes, np.arange(outcomes.n), rng=rng)
    panels = {name: reliability(adequacy[:, t], outcomes.quality[:, t]) for t, name in enumerate(TIERS)}
    return (
        cost_quality(
            curve,
            tiers=TIERS,
            title="Half the cost & nearly all of the quality",
            baselines={name: curve_of(sweep, outcomes) for name, sweep in sweeps.items()},
            operating=(float(curve.cost[50]), float(curve.quality[50])),
            target=0.97,
            note="here",
            simulated=simulated,
        ),
        reliability_diagram(
            panels, title="Calibrated", ece={"small": Figure(0.0123)} | dict.fromkeys(TIERS, Figure(0.1))
        ),
        tier_mix(curve, columns=TIERS, title="Mix", operating=0.97, simulated=simulated),
        score_histogram(adequacy[:, 2] - adequacy[:, 0], title="Scores", label="gain", simulated=simulated),
    )


@pytest.fixture(scope="module")
def report() -> ReportData:
    rng = np.random.default_rng(0)
    n = 300
    quality = (rng.random((n, 3)) < (0.5, 0.7, 0.9)).astype(float)
    outcomes = Outcomes(quality, rng.uniform(0.9, 1.1, (n, 3)) * (0.001, 0.003, 0.01))
    adequacy = np.clip(0.5 * quality + rng.uniform(0, 0.5, (n, 3)), 0, 1)
    sweep = price_sweep(adequacy, outcomes.cost, rng=rng)
    router = strategy_of("router", sweep.columns_at(n // 2), outcomes, rng=rng, draws=50)
    losses = {"constant": rng.random(n) + 0.2, "linear": rng.random(n)}
    return ReportData(
        title="Support <chat>",
        created=datetime(2026, 11, 22, 10, 30, tzinfo=UTC),
        tiers=TIERS,
        columns=TIERS,
        best_tier="large",
        quality=0.97,
        router=replace(router, escalation_rate=0.1234),
        others=(
            strategy_of("always small", always(0, outcomes), outcomes, rng=rng, draws=50),
            random_mix(outcomes, router.cost_usd),
            strategy_of("oracle", oracle_choice(outcomes), outcomes, rng=rng, draws=50),
        ),
        figures=curve_figures(sweep, outcomes, rng=rng, draws=50),
        oracle={},
        vacuous=None,
        choice=one_standard_error(losses, simplicity=("constant", "linear")),
        calibration={
            name: calibration_figures(adequacy[:, t], quality[:, t], rng=rng, draws=20) for t, name in enumerate(TIERS)
        },
        pictures=make_pictures(outcomes, adequacy, simulated=True),
        data=DataFacts(
            "a workload", "c0ffee" * 10, 1234, n, datetime(2026, 1, 2, tzinfo=UTC), None, True, {"labels": "judge"}
        ),
        model=ModelFacts("linear", "router-2026-11-22.1", "run-7", {"features": "48"}),
        slices=(Slice("tenant acme", 77, Figure(0.9512, 0.9, 1.0), Figure(None, reason="costs nothing")),),
        notes=("A closing note.",),
    )


class Addresses(HTMLParser):
    """Collects whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        for name, value in attrs:
            if (name in ("src", "href", "xlink:href", "action") and not str(value).startswith(("#", "data:"))) or (
                name.startswith("on")
            ):
                self.found.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe", "object", "embed", "base"):
            self.found.append(tag)


def test_a_report_needs_nothing_but_itself(report: ReportData):
    page = render_report(report)
    reader = Addresses()
    reader.feed(page)
    assert reader.found == []
    assert "http" not in page
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []


def test_ids_in_a_report_are_unique_and_every_reference_has_its_target(report: ReportData):
    page = render_report(report)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([^\")]+)", page)) <= set(ids)


def test_a_report_says_every_number_it_is_given(report: ReportData):
    page = render_report(report)
    text = re.sub(r"\s+", " ", page)
    for row in (report.router, *report.others):
        for figure in (row.quality_kept, row.saving):
            assert f"{round(100 * figure.value, 1) + 0.0:.1f} %" in text
            if figure.low is not None:
                assert f"{100 * figure.low:.1f} to {100 * figure.high:.1f} %" in text
        assert f"{row.cost_per_1k_usd:.4g}" in text
        assert f"{row.quality:.4f}" in text
        for share in row.share:
            assert f"{100 * share:.1f} %" in text
    for name, figure in report.figures.items():
        shown = (
            f"{figure.value:.4f}"
            if name in ("aiq", "zero_aiq", "qnc", "cost_ratio")
            else f"{100 * (figure.value or 0):.1f} %"
        )
        assert (shown if figure.value is not None else figure.reason) in text, name
    for figures in report.calibration.values():
        for figure in figures.values():
            assert f"{figure.value:.4f}" in text
    for row in report.choice.candidates:
        assert f"{row.loss:.5f}" in text
    facts = ["12.3 %", "1,234", "300", "c0ffee" * 10, "run-7", "router-2026-11-22.1", "judge", "tenant acme", "95.1 %"]
    facts += ["77", "2026-01-02 00:00 UTC", "2026-11-22 10:30 UTC", "A closing note.", report.choice.verdict]
    for fact in facts:
        assert fact.replace("'", "&#39;") in text


def test_the_gates_are_a_table_that_says_what_failed_and_what_only_warns(report: ReportData):
    gates = (
        GateLine("saving", True, "saves more", 0.8123, 0.7),
        GateLine("slices", False, "code & tools lose 0.1"),
        GateLine("drift", False, "words", 0.3, 0.2, required=False),
    )
    page = render_report(replace(report, gates=gates))
    body = page[page.index("Gates before promotion") : page.index("<h2>Strategies on")]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))
    assert "saving passed 0.8123 0.7000 saves more" in text
    assert "slices failed - - code &amp; tools lose 0.1" in text
    assert "drift warns only 0.3000 0.2000 words" in text
    assert "Gates before promotion" not in render_report(report)


def test_a_page_offers_the_figures_of_every_picture_without_a_script(report: ReportData):
    page = render_report(report)
    offered = re.findall(r'download="([^"]+)" href="data:text/csv;base64,([^"]+)"', page)
    held = {f"{picture.name}.csv": picture.data for picture in report.pictures}
    assert {name: base64.b64decode(text).decode() for name, text in offered} == held


def test_the_data_of_a_picture_are_what_is_drawn(report: ReportData):
    cost, bins, mix, scores = (list(csv.DictReader(io.StringIO(picture.data))) for picture in report.pictures)
    series = {row["series"] for row in cost}
    assert {"router", "random mix", "oracle", "prompt_length", "always large", "operating point"} <= series
    assert "quality asked for" in series
    assert {row["tier"] for row in bins} == set(TIERS)
    assert sum(float(row["requests"]) for row in bins if row["series"] == "bin" and row["tier"] == "small") == 300
    assert sum(float(row["requests"]) for row in bins if row["series"] == "spread" and row["tier"] == "small") == 300
    assert all(sum(float(row[name]) for name in TIERS) == pytest.approx(1, abs=1e-5) for row in mix)
    assert "quality kept, % of always large" in report.pictures[2].svg
    assert list(scores[0]) == ["from", "to", "requests"]
    assert sum(int(row["requests"]) for row in scores) == 300


def test_cautions_stand_over_the_figures_and_an_estimate_is_stamped(report: ReportData):
    careful = replace(report, cautions=("It has seen <half> of these.",), estimated=True)
    page = render_report(careful)
    assert page.index("It has seen &lt;half&gt; of these.") < page.index('<div class="tiles">')
    assert '<span class="stamp">estimated</span>' in page
    assert summary_table(careful).splitlines().index("It has seen <half> of these.") < 4
    assert '<span class="stamp">estimated</span>' not in render_report(report)


def test_text_from_outside_is_escaped(report: ReportData):
    page = render_report(replace(report, title="<script>alert(1)</script>"))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_simulated_data_are_stamped_on_the_page_the_table_and_every_figure_that_knows(report: ReportData):
    page = render_report(report)
    assert '<span class="stamp">simulated data</span>' in page
    assert summary_table(report).splitlines()[0].endswith("(simulated data)")
    assert all(("simulated data" in picture.svg) == (picture.name != "reliability") for picture in report.pictures)
    real = replace(report, data=replace(report.data, simulated=False), pictures=())
    assert "simulated" not in render_report(real)
    assert "simulated" not in summary_table(real)


def test_keeping_the_constant_model_is_a_result_of_its_own(report: ReportData):
    rows = np.random.default_rng(0).random(50)
    kept = replace(
        report, choice=one_standard_error({"constant": rows, "linear": rows}, simplicity=("constant", "linear"))
    )
    assert headline(kept) == "Keep the constant model"
    assert "a result, not a failure" in render_report(kept)
    assert "claim takes learning" not in render_report(kept)


def test_a_vacuous_claim_a_missed_target_and_an_undefined_one_are_said(report: ReportData):
    vacuous = replace(report, vacuous="a coin does as well")
    assert "vacuous on this traffic" in render_report(vacuous)
    assert "vacuous claim: a coin does as well" in summary_table(vacuous)
    low = replace(report, router=replace(report.router, quality_kept=Figure(0.9, 0.88, 0.92), saving=Figure(-0.2)))
    assert "below the 97.0 % asked for" in render_report(low)
    assert headline(low) == "Costs 20.0 % more and keeps 90.0 % of the quality of always large"
    free = replace(report, router=replace(report.router, saving=Figure(None, reason="the best tier's cost is 0")))
    assert headline(free) == "No claim can be made: the best tier's cost is 0"
    assert "undefined" in render_report(free)


def test_the_summary_table_has_one_aligned_row_per_strategy(report: ReportData):
    lines = summary_table(report).splitlines()
    table = lines[lines.index("") + 1 :]
    assert [line.split("  ")[0].strip() for line in table[2:]] == ["router", "always small", "random mix", "oracle"]
    assert "quality gap g" in lines[1]
    assert "cost ratio r" in lines[1]
    assert len({len(line) for line in table[1:3]}) == 1


def test_pictures_are_valid_png_and_svg_and_the_same_each_time(report: ReportData):
    for picture in report.pictures:
        assert picture.png.startswith(b"\x89PNG\r\n")
        root = ElementTree.fromstring(picture.svg)
        assert root.tag.endswith("svg")
        assert root[0].text == picture.title
        assert root[1].text == picture.alt
    scores = np.random.default_rng(0).random(50)
    first, again = (score_histogram(scores, title="t", label="l") for _ in range(2))
    assert (first.svg, first.png) == (again.svg, again.png)


def test_every_colour_of_a_picture_follows_the_theme_of_the_page(report: ReportData):
    for picture in report.pictures:
        assert re.findall(r"(?<!, )#[0-9a-f]{6}\b", picture.svg) == []


def test_drawing_leaves_no_global_state():
    import matplotlib

    before = dict(matplotlib.rcParams)
    score_histogram([0.1, 0.2, 0.4], title="t", label="l")
    assert dict(matplotlib.rcParams) == before


def test_a_curve_of_one_point_and_a_histogram_of_one_value_can_be_drawn():
    outcomes = Outcomes([[0.5, 0.5]], [[1.0, 2.0]])
    curve = curve_of(price_sweep([[0.5, 0.5]], outcomes.cost, rng=np.random.default_rng(0)), outcomes)
    assert cost_quality(curve, tiers=("a", "b"), title="t").png
    assert tier_mix(curve, columns=("a", "b"), title="t").png
    assert score_histogram([0.5], title="t", label="l").png


@pytest.mark.parametrize("dark", [False, True])
def test_tiers_are_one_ramp_whose_lightness_keeps_their_order(dark: bool):
    for n in (1, 2, 5, 10):
        light = [sum(int(shade[i : i + 2], 16) for i in (1, 3, 5)) for shade in tier_colours(n, dark=dark)]
        assert light == sorted(light, reverse=not dark)
