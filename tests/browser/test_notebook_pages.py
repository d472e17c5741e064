"""Exported notebooks in a real browser, and the quality knob of a running one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.e2e]

ROOT = Path(__file__).resolve().parents[2]
# Headings, and how many pictures and tables, of each.
WANTED = {
    "01_explore_logs": (["Explore logs", "Data quality", "Tiers", "Over time", "Who says what", "Examples"], 1, 3),
    "02_train_and_compare": (
        ["Train and compare", "The competition", "Curves", "Calibration", "What it looks at"],
        4,
        2,
    ),
    "03_review_challenger": (["Review a challenger", "The shelf", "Side by side", "Where they disagree"], 0, 4),
    "04_certificate_and_policy": (["Certificate and policy", "Every setting that was tuned", "What is proven"], 2, 2),
    "05_offpolicy": (["Off-policy evaluation", "Estimates", "Overlap", "Left out"], 1, 3),
}


def marimo(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "marimo", *arguments]


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebooks in a folder of their own: marimo writes its notes beside them."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name in WANTED:
        shutil.copy(ROOT / "notebooks" / f"{name}.py", folder)
    return folder


@pytest.fixture(scope="module")
def exported(notebooks: Path, review_home: Path) -> Path:
    """The folder with the pages of all notebooks."""
    script = Path(__file__).with_name("export_notebooks.py")
    found = subprocess.run(
        [sys.executable, str(script), str(review_home), *WANTED],
        cwd=notebooks,
        env=os.environ | {"MARIMO_SKIP_UPDATE_CHECK": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert found.returncode == 0, found.stderr
    assert "Error" not in found.stderr
    return notebooks


@pytest.mark.parametrize("name", WANTED)
def test_an_exported_notebook_shows_its_headings_tables_and_pictures(
    name: str, exported: Path, page_of: Callable[..., Any]
) -> None:
    out = exported / f"{name}.html"
    headings, pictures, tables = WANTED[name]
    with page_of(out.as_uri()) as page:
        page.get_by_role("heading", name=headings[-1], exact=True).wait_for()
        assert [one for one in page.locator("h1, h2").all_inner_texts() if one in headings] == headings
        page.wait_for_function("wanted => document.querySelectorAll('figure svg').length >= wanted", arg=pictures)
        assert page.locator("figure svg").count() == pictures
        assert page.locator("marimo-table").count() >= tables
        assert page.get_by_text(re.compile("Traceback|Error:")).count() == 0


@pytest.fixture(scope="module")
def running(notebooks: Path, review_home: Path) -> Iterator[str]:
    """The address of the notebook with the knob, run as an app."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (
        "run",
        "04_certificate_and_policy.py",
        "--headless",
        "--no-token",
        "--host",
        "127.0.0.1",
        "-p",
        str(port),
    )
    environ = os.environ | {"ROUTER_ML_NOTEBOOK_HOME": str(review_home), "MARIMO_SKIP_UPDATE_CHECK": "1"}
    with (notebooks / "log").open("wb") as log:
        server = subprocess.Popen(
            marimo(*arguments), cwd=notebooks, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait(address, server, notebooks / "log")
        yield address
    finally:
        server.terminate()
        server.wait(20)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if server.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"marimo did not start: {log.read_text()[-2_000:]}")
            time.sleep(0.1)


def test_the_figures_follow_the_knob(running: str, page_of: Callable[..., Any]) -> None:
    from playwright.sync_api import expect

    with page_of(running) as page:
        knob = page.get_by_role("slider")
        knob.wait_for(timeout=60_000)
        page.locator("figure svg").nth(1).wait_for(timeout=60_000)
        saved = page.get_by_text(re.compile(r"^[0-9.]+%$")).first
        before = saved.inner_text()
        assert page.get_by_text("asked for 97 %").count() >= 1
        knob.focus()
        page.keyboard.press("Home")
        page.get_by_text("asked for 80 %").first.wait_for(timeout=60_000)
        expect(saved).not_to_have_text(before, timeout=60_000)  # each cell is drawn when it is ready
        assert float(saved.inner_text().rstrip("%")) > float(before.rstrip("%"))
