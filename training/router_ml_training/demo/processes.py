"""Child processes of the demo: started, waited for until they say they are ready, and always ended."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, Queue

from router_ml.errors import RouterError

__all__ = ["service", "standin"]

_START_S = 60.0
_STOP_S = 15.0


@contextlib.contextmanager
def standin(outcomes: Path, model: str) -> Iterator[str]:
    """Run a stand-in upstream for one model and yield its base URL."""
    command = ["-m", "router_ml_training.simulate.standin", "--outcomes", str(outcomes), "--models", model]
    with _running(command, rf"^{{.*{re.escape('ready')}.*}}$", stream="stdout") as line:
        yield str(json.loads(line)["url"])


@contextlib.contextmanager
def service(config: Path, log: Path) -> Iterator[str]:
    """Run `router-ml serve` and yield its base URL; what it says goes to a log file."""
    command = ["-m", "router_ml.cli", "serve", "--config", str(config), "--port", "0"]
    with _running(command, r"listening on (http://\S+)", stream="stderr", log=log) as line:
        yield line.rpartition(" ")[2].strip()


@contextlib.contextmanager
def _running(command: Sequence[str], ready: str, *, stream: str, log: Path | None = None) -> Iterator[str]:
    process = subprocess.Popen(  # noqa: S603  our own modules under our own interpreter
        [sys.executable, *command],
        stdout=subprocess.PIPE if stream == "stdout" else subprocess.DEVNULL,
        stderr=subprocess.PIPE if stream == "stderr" else None,
        text=True,
    )
    lines: Queue[str | None] = Queue()
    pump = threading.Thread(target=_pump, args=(process, stream, lines, log), daemon=True)
    pump.start()
    try:
        yield _wait(lines, ready, " ".join(command))
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        pump.join(_STOP_S)


def _pump(process: subprocess.Popen[str], stream: str, lines: Queue[str | None], log: Path | None) -> None:
    # Keeps reading for as long as the process lives, so that it never blocks on a full pipe.
    source = process.stdout if stream == "stdout" else process.stderr
    if source is None:
        return
    with source, log.open("w", encoding="utf-8") if log else contextlib.nullcontext() as file:
        for line in source:
            lines.put(line)
            if file is not None:
                file.write(line)
                file.flush()
    lines.put(None)


def _wait(lines: Queue[str | None], ready: str, command: str) -> str:
    seen: list[str] = []
    while True:
        try:
            line = lines.get(timeout=_START_S)
        except Empty as error:
            raise RouterError(f"`{command}` was not ready within {_START_S:.0f} s") from error
        if line is None:
            raise RouterError(f"`{command}` ended before it was ready: {''.join(seen[-5:]).strip() or 'no output'}")
        if re.search(ready, line.strip()):
            return line.strip()
        seen.append(line)
