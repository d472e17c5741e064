"""The wheel: three packages and the default bundle, nothing else, and it works away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PACKAGES = {"router_ml", "router_ml_training", "router_ml_serving"}
MAX_BYTES = 3 * 2**20


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    built = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def router_ml(arguments: list[str], *, site: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command from the unpacked wheel, in a folder that holds decoys of the checkout's folders."""
    for decoy in ("training", "serving", "models"):
        (folder / decoy).mkdir(exist_ok=True)
        (folder / decoy / "__init__.py").write_text("raise SystemExit('a decoy was imported')\n", encoding="utf-8")
    code = (
        "import sys, router_ml\n"
        f"assert router_ml.__file__.startswith({str(site)!r}), router_ml.__file__\n"
        "from router_ml.cli import main\n"
        f"sys.exit(main({arguments!r}))"
    )
    environ = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )


def test_the_wheel_holds_the_packages_and_the_default_bundle_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.partition("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES
    assert {f"router_ml/default_bundle/{name}" for name in ("manifest.json", "model.onnx", "policy.json")} <= {*names}
    assert {f"{package}/py.typed" for package in PACKAGES} <= {*names}
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".db"))]
    assert wheel.stat().st_size < MAX_BYTES


def test_a_prompt_is_routed_by_the_bundle_inside_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    found = router_ml(["route", "What is the capital of France?", "--json"], site=unpacked, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    decision = json.loads(found.stdout)
    assert decision["tier"] in decision["adequacy"]
    assert decision["policy_version"]


def test_data_files_of_the_training_package_are_inside(unpacked: Path, tmp_path: Path) -> None:
    out = tmp_path / "workload.parquet"
    found = router_ml(["simulate", "workload", "--n", "30", "--out", str(out)], site=unpacked, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    assert out.stat().st_size > 0
    assert list(unpacked.glob("router_ml_training/**/*.j2"))
