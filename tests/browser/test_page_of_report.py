"""The report in a real browser: complete, quiet, legible in both themes, and as wide as the window."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.shelf import Shelf

pytestmark = [pytest.mark.browser, pytest.mark.slow]

GATES = (
    {"name": "saving", "passed": True, "detail": "saves 0.8, the champion 0.7", "value": 0.8, "limit": 0.7},
    {"name": "slices", "passed": False, "detail": "code " * 60, "value": None, "limit": None, "required": True},
)


@pytest.fixture(scope="module")
def report(review_home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report on the champion, whose gates the shelf has."""
    version = Shelf(review_home / "models").champion()
    assert version is not None
    Shelf(review_home / "models").keep_gates(version, GATES)
    out = tmp_path_factory.mktemp("report") / "report.html"
    folder = pytest.MonkeyPatch()
    folder.chdir(review_home)
    assert main(["report", "log.jsonl", "--config", "router.toml", "--out", str(out)]) == 0
    folder.undo()
    return out.as_uri()


def test_headings_tables_and_pictures_are_visible(page_of: Callable[..., Any], report: str) -> None:
    with page_of(report) as page:
        assert page.locator("h1").inner_text().startswith("Saves ")
        headings = page.locator("h2").all_inner_texts()
        assert {"Gates before promotion", "Slices of the traffic", "Data and model"} <= set(headings)
        pictures = page.locator("figure svg")
        titles = [picture.locator("title").first.text_content() for picture in pictures.all()]
        assert "What the router looks at, shuffled one by one" in titles
        assert "What each part of the traffic keeps and saves" in titles
        assert all(one.is_visible() and one.bounding_box()["width"] > 300 for one in pictures.all())
        assert all(table.is_visible() for table in page.locator("table").all())
        gates = page.locator("table").first.locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[:2] for row in gates] == [["saving", "passed"], ["slices", "failed"]]


def test_each_picture_offers_its_figures_as_a_file(page_of: Callable[..., Any], report: str) -> None:
    with page_of(report) as page:
        links = page.locator("figcaption a")
        assert links.count() == page.locator("figure svg").count() >= 6
        for link in links.all():
            head, _, data = link.get_attribute("href").partition(",")
            assert head == "data:text/csv;base64"
            assert len(base64.b64decode(data).decode().splitlines()) > 1
            assert link.get_attribute("download").endswith(".csv")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(page_of: Callable[..., Any], report: str, width: int) -> None:
    with page_of(report, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_in_both_themes(page_of: Callable[..., Any], report: str, dark: bool) -> None:
    brightness = """selector => {
        const rgb = (value) => value.match(/[0-9.]+/g).slice(0, 3).map(Number);
        const light = (value) => rgb(value).reduce((a, b) => a + b) / 3;
        const found = [...document.querySelectorAll(selector)].map((one) => {
            const style = getComputedStyle(one);
            return light(one instanceof SVGElement && style.fill !== 'none' ? style.fill : style.color);
        });
        return [light(getComputedStyle(document.body).backgroundColor), ...found];
    }"""
    with page_of(report, dark=dark) as page:
        ground, *ink = page.evaluate(brightness, "h1, td, figure svg text")
        assert (ground < 60) == dark
        assert len(ink) > 50
        assert min(abs(one - ground) for one in ink) > 70


def test_the_page_was_made_now(page_of: Callable[..., Any], report: str) -> None:
    with page_of(report) as page:
        assert f"{datetime.now(UTC):%Y-%m}" in page.locator("footer").inner_text()
