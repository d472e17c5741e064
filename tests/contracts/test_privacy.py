"""Nothing is left behind and nothing is reported home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_a_decision_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    del environment["ORT_DISABLE_TELEMETRY"]
    command = [sys.executable, "-m", "router_ml.cli", "route", "Hello"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*"))
