"""What the contract tests look at: the folder of the project, its tracked files, and the modules of its packages."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "router_ml": ROOT / "router_ml",
    "router_ml_training": ROOT / "training" / "router_ml_training",
    "router_ml_serving": ROOT / "serving" / "router_ml_serving",
}


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the three packages: its dotted name and its file."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def _modules() -> list[Module]:
    found = []
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            dotted = ".".join((package, *parts)).removesuffix(".__init__")
            found.append(Module(dotted, path))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "module" in metafunc.fixturenames:
        modules = _modules()
        metafunc.parametrize("module", modules, ids=[module.name for module in modules])


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def modules() -> list[Module]:
    return _modules()


@pytest.fixture(scope="session")
def tracked() -> list[Path]:
    """Files that git has, or would take: what a clone holds."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so nothing says which files are tracked")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in sorted(filter(None, listed.split("\0"))) if (path := ROOT / name).is_file()]


@pytest.fixture(scope="session")
def instructions() -> Callable[[Path, Mapping[str, str]], list[tuple[str, str]]]:
    """Reads a Dockerfile: (instruction, the rest) in order, build arguments filled in."""
    return _instructions


def _instructions(path: Path, given: Mapping[str, str]) -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    arguments = dict(rest.split("=", 1) for word, rest in lines if word == "ARG") | dict(given)
    return [(word, re.sub(r"\$\{(\w+)\}", lambda name: arguments[name[1]], rest)) for word, rest in lines]
