"""A real browser for the tests: Chromium through Playwright; without it they are skipped, with the reason."""

from __future__ import annotations

import importlib.util
import mimetypes
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

# Nothing of a browser's own calls home.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Where exported notebooks look for marimo's own files.
MARIMO = re.compile(r"^https://[^/]+/npm/@marimo-team/frontend@[^/]+/dist/([^?]*)")
Open = Callable[..., AbstractContextManager[Any]]


# Playwright runs an event loop on this thread as long as it is open: no other test could run its own meanwhile.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """The browser."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install 'router-ml[dev]'")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if program is None or not Path(program).is_file():
        pytest.skip(f"no browser at {program or 'chromium on the PATH'}: install Chromium, or set CHROMIUM to it")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture
def page_of(chromium: Any) -> Open:
    """Open an address in a fresh page; leaving the block fails on whatever the page complained about.

    marimo's files come from the installed package, and nothing else is fetched.
    """

    @contextmanager
    def opened(address: str, *, width: int = 1280, dark: bool = False) -> Iterator[Any]:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        complaints: list[str] = []
        page.on("console", lambda line: complaints.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route(re.compile("^https?://(?!127[.]0[.]0[.]1|localhost)"), lambda route: _serve(route, complaints))
        page.goto(address)
        try:
            yield page
            assert complaints == []
        finally:
            page.close()

    return opened


def _serve(route: Any, complaints: list[str]) -> None:
    found = MARIMO.match(route.request.url)
    package = importlib.util.find_spec("marimo")
    assert package is not None
    file = Path(str(package.origin)).parent / "_static" / (found[1] if found else "nothing")
    if not file.is_file():
        complaints.append(f"fetched {route.request.url}")
        route.abort()
        return
    kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    route.fulfill(path=str(file), content_type=kind, headers={"access-control-allow-origin": "*"})
