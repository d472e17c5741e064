"""What may import what, and what a fresh interpreter loads: the import rules, and how light the light parts are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = ("polars", "sklearn", "lightgbm", "mlflow", "scipy", "pandas", "matplotlib", "onnx", "router_ml_training")
SERVER = ("fastapi", "starlette", "uvicorn", "aiohttp", "sqlalchemy", "router_ml_serving")
# Loads in tens of milliseconds or less: what `router-ml --help` may cost.
HEAVY = ("numpy", "onnxruntime", "pydantic", *TRAINING, *SERVER)


def loaded_by(code: str, names: tuple[str, ...], folder: Path) -> list[str]:
    """Run code in a fresh interpreter and return which of these modules it has then loaded."""
    report = f"import sys\n{code}\nsys.stdout.write('\\n' + ' '.join(n for n in {names!r} if n in sys.modules))"
    found = subprocess.run([sys.executable, "-c", report], cwd=folder, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()[-1].split()


def test_the_import_rules_hold(root: Path) -> None:
    command = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run([str(command), "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_service_loads_nothing_of_training(tmp_path: Path) -> None:
    assert loaded_by("import router_ml_serving.app, router_ml_serving.commands.serve", TRAINING, tmp_path) == []


def test_a_service_that_has_decided_still_loads_nothing_of_training(tmp_path: Path) -> None:
    code = f"""
import numpy as np
from pathlib import Path
from router_ml.config import load_config
from router_ml.store import open_store
from router_ml_serving.app import create_app
from router_ml_serving.settings import serving_settings
environ = {{"ROUTER_ML_STORE__URL": "sqlite:///{tmp_path}/events.db"}}
config = load_config(None, environ)
app = create_app(serving_settings(config), config, store=open_store(config.store.url), environ={{}})
"""
    assert loaded_by(code, TRAINING, tmp_path) == []


@pytest.mark.parametrize("name", ["router_ml", "router_ml.router", "router_ml.shelf", "router_ml.store"])
def test_the_library_loads_neither_side_nor_a_server(name: str, tmp_path: Path) -> None:
    assert loaded_by(f"import {name}", (*TRAINING, *SERVER), tmp_path) == []


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("import router_ml", HEAVY, tmp_path) == []


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("from router_ml.cli import main\nmain(['--help'])", HEAVY, tmp_path) == []


def test_importing_any_module_of_the_library_writes_no_file(modules: list, tmp_path: Path) -> None:
    names = [module.name for module in modules if module.package != "router_ml_training"]
    names.remove("router_ml.cli.__main__")
    loaded_by("\n".join(f"import {name}" for name in names), (), tmp_path)
    assert list(tmp_path.iterdir()) == []
