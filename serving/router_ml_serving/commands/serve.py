"""`router-ml serve`: run the service until it is told to stop."""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from router_ml.config import load_config, parse_section
from router_ml.errors import UsageError
from router_ml.store import open_store
from router_ml_serving import logs
from router_ml_serving.app import CONFIG_ENV, create_app
from router_ml_serving.auth import check_exposure
from router_ml_serving.descriptors import Room, raise_limit
from router_ml_serving.guard import GuardedProtocol
from router_ml_serving.settings import ServingSettings, serving_settings

__all__ = ["add_arguments", "run"]

# Longer than clients keep idle connections, so that the client closes first and never writes to a closed one.
_KEEPALIVE_S = 75
_WORKER_START_S = 60
_STOPS = frozenset({signal.SIGTERM, signal.SIGINT})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes; the rest is `[serving]` of router.toml."""
    parser.add_argument("--host", help="address to listen on (default: serving.host, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (default: serving.port, 8080)")
    parser.add_argument("--workers", type=int, help="processes that serve (default: serving.workers, 1)")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then finish the requests that are open.

    Raises:
        ConfigError: When the configuration is wrong.
        BundleError: When the champion cannot be used.
        UsageError: When the address is taken.
    """
    path = Path(args.config) if args.config else None
    config = load_config(path, os.environ)
    given = {name: value for name in ("host", "port", "workers") if (value := getattr(args, name)) is not None}
    settings = serving_settings(config)
    settings = parse_section(ServingSettings, {**settings.model_dump(), **given}, where="command line", prefix="--")
    check_exposure(settings)
    logs.configure(settings.log_level, settings.log_format)
    listener = _listen(settings)
    stop = _Stop()
    # With workers too: what is wrong is said once and here. A worker that cannot start is started again for ever.
    store = open_store(config.store.url)
    app = create_app(settings, config, store=store)
    if settings.workers == 1:
        served = logs.LogRequests(app) if settings.log_requests else app
        server = _Server(uvicorn.Config(served, **_options(settings)), stop)
        server.run(sockets=[listener])
        return 0 if server.started else 1
    store.close()
    _tell_workers(path, given)
    factory = "router_ml_serving.app:app_from_environment"
    _Workers(uvicorn.Config(factory, factory=True, workers=settings.workers, **_options(settings)), [listener]).run()
    return 0


def _tell_workers(path: Path | None, given: Mapping[str, object]) -> None:
    # They read the configuration by themselves, and the command line goes before the environment there too.
    if path is not None:
        os.environ[CONFIG_ENV] = str(path.resolve())
    for name, value in given.items():
        os.environ[f"ROUTER_ML_SERVING__{name.upper()}"] = str(value)


class _Stop:
    """What SIGTERM and SIGINT do while uvicorn does not handle them.

    Before it serves they end the process at once: ignored, a service told to stop while it starts would run for ever.
    After it has drained uvicorn raises them again for whoever handled them before: nobody, so that we exit with 0.
    """

    def __init__(self) -> None:
        self.served = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.served:
            raise SystemExit(0)


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stop: _Stop) -> None:
        super().__init__(config)
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop.served = True
        await super().startup(sockets)
        if self.started and sockets:
            _announce(sockets[0])


class _Workers(Multiprocess):
    def init_processes(self) -> None:
        super().init_processes()
        if all(self._is_up(process) for process in self.processes):
            _announce(self.sockets[0])

    def _is_up(self, process: Process) -> bool:
        for _ in range(_WORKER_START_S):
            if not _STOPS.isdisjoint(self.signal_queue):  # a stop does not wait for workers that start; all else does
                self.should_exit.set()
            if process.wait_until_ready(1.0, self.should_exit):
                return True
            if self.should_exit.is_set() or not process.process.is_alive():
                break
        return False


def _options(settings: ServingSettings) -> dict[str, Any]:  # keyword arguments of uvicorn.Config
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop" if sys.platform != "win32" else "asyncio",
        "http": partial(
            GuardedProtocol, receive_s=settings.receive_s, send_s=settings.send_s, room=Room(raise_limit())
        ),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "server_header": False,
        # Who asks is told by the key: nothing here looks at addresses, forwarded or not.
        "proxy_headers": False,
        "log_config": None,
        "timeout_keep_alive": _KEEPALIVE_S,
        "timeout_graceful_shutdown": math.ceil(settings.drain_s),
    }


def _listen(settings: ServingSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        raise UsageError(
            f"cannot listen on {where}: {error.strerror}; choose another with --host and --port"
        ) from error
    listener.set_inheritable(True)
    return listener


def _announce(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    logs.announce(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
