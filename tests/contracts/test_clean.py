"""What a clone holds: no address of this or that machine, no package host, no download address, nothing large."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

MAX_BYTES = 2 * 2**20
# A path under somebody's home or under a folder that only one machine has.
FOREIGN_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home|Users)/[\w.]")
PACKAGE_HOST = re.compile(r"pypi\.(?:org|python)|pythonhosted\.|anaconda\.(?:org|com)|npmjs\.|(?:extra-)?index-url[ =]")
DOWNLOAD = re.compile(r"\w+://|--(?:extra-)?index-url|--find-links|--trusted-host|(?:^| )@ ", re.MULTILINE)


def texts(paths: list[Path]) -> list[tuple[Path, str]]:
    """Return the files that are text, with their text."""
    found = []
    for path in paths:
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("forbidden", [FOREIGN_PATH, PACKAGE_HOST], ids=["foreign path", "package host"])
def test_no_tracked_text_names_a_place_outside(forbidden: re.Pattern[str], tracked: list[Path], root: Path) -> None:
    here = Path(__file__).resolve()
    named = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path, text in texts(tracked)
        if path != here
        for number, line in enumerate(text.splitlines(), start=1)
        if forbidden.search(line)
    ]
    assert named == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert FOREIGN_PATH.search("see /home/me/logs")
    assert not FOREIGN_PATH.search("GET /v1/home/x, tests/work/x")
    assert PACKAGE_HOST.search("https://files.pythonhosted.org/x")
    assert DOWNLOAD.search("numpy @ https://somewhere")
    assert not DOWNLOAD.search("numpy==2.4.6 \\\n    --hash=sha256:00  # via router-ml (pyproject.toml)")


@pytest.mark.parametrize("name", ["all.lock", "deploy.lock", "serving.lock", "training.lock"])
def test_a_lock_records_hashes_and_no_download_address(name: str, root: Path) -> None:
    text = (root / "requirements" / name).read_text(encoding="utf-8")
    pins = re.findall(r"^([\w.\[\]-]+)==", text, re.MULTILINE)
    assert len(pins) > 20
    assert not DOWNLOAD.search(text)
    unhashed = [block.split()[0] for block in re.split(r"\n(?=[A-Za-z0-9])", text) if "--hash=sha256:" not in block]
    assert unhashed == []


@pytest.mark.parametrize("name", ["deploy.lock", "serving.lock"])
def test_a_lock_of_the_service_brings_nothing_of_training(name: str, root: Path) -> None:
    text = (root / "requirements" / name).read_text(encoding="utf-8")
    pins = set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE))
    assert pins.isdisjoint({"polars", "scikit-learn", "lightgbm", "mlflow", "scipy", "pandas", "matplotlib", "onnx"})
    assert pins >= {"fastapi", "onnxruntime", "numpy", "aiohttp", "sqlalchemy"}


def test_nothing_tracked_is_large(tracked: list[Path], root: Path) -> None:
    large = [
        f"{path.relative_to(root)}: {path.stat().st_size:,}" for path in tracked if path.stat().st_size > MAX_BYTES
    ]
    assert large == []


def test_no_tool_lock_with_addresses_is_tracked(tracked: list[Path]) -> None:
    assert {path.name for path in tracked}.isdisjoint({"uv.lock", "pylock.toml", "poetry.lock", "Pipfile.lock"})
