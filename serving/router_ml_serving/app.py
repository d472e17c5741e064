"""The composition root: puts the parts of a service together; nothing runs at import."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from fastapi import FastAPI
from starlette.types import ASGIApp

from router_ml import __version__
from router_ml.config import Config, load_config
from router_ml.router import Router
from router_ml.shelf import Shelf
from router_ml.store import EventStore, open_store
from router_ml_serving import logs, problems
from router_ml_serving.api import ROUTERS
from router_ml_serving.auth import authorizer_of
from router_ml_serving.front import Front
from router_ml_serving.health import Health
from router_ml_serving.holder import RouterHolder
from router_ml_serving.ids import DecisionIds
from router_ml_serving.limits import Limits
from router_ml_serving.locality import is_loopback
from router_ml_serving.recall import Recall
from router_ml_serving.recorder import Recorder
from router_ml_serving.rollout import Rollout
from router_ml_serving.service import Service, now_s
from router_ml_serving.settings import ServingSettings, rollout_settings, serving_settings
from router_ml_serving.shadow import BackgroundCalls
from router_ml_serving.shared_limits import SharedLimits, shared_limits_of
from router_ml_serving.telemetry import CountRequests, Telemetry
from router_ml_serving.tenants import tenants_of
from router_ml_serving.tracers import tracing_of
from router_ml_serving.upstream import HttpUpstream, Upstream

__all__ = ["CONFIG_ENV", "app_from_environment", "create_app"]

log = logging.getLogger(__name__)

# New objects before the collector looks through them, and how many times it does so before it looks through older ones.
# A request frees its own, so what it would look through are mostly those of requests that are under way: Python's 700
# let it do that at every seventh request. The older ones are few once what was loaded is frozen, and are not let wait:
# what failed calls leave behind grew the memory by 5 % in a minute of them.
_COLLECT_EVERY = (5_000, 5, 2)
# How worker processes learn which file to read; without two underscores it overrides no key.
CONFIG_ENV = "ROUTER_ML_CONFIG"


def create_app(
    settings: ServingSettings,
    config: Config,
    *,
    store: EventStore,
    upstream: Upstream | None = None,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """Put a service together; its lifespan opens connections and starts the background work.

    Args:
        settings: `[serving]` of the configuration.
        config: The whole configuration.
        store: Where events go; it is closed with the application.
        upstream: Calls the tiers; None calls them over HTTP.
        environ: Where keys are looked up; None takes the process's environment.
        clock: The time of day, with a time zone.

    Raises:
        ConfigError: When configuration and bundle do not fit together, or a key that was asked for is not set.
        BundleError: When the champion cannot be used.
        StoreError: When the folder of the spill file cannot be made.
    """
    environ = os.environ if environ is None else environ
    telemetry = Telemetry()
    tracing = tracing_of(settings, environ)
    shelf = Shelf(config.models_dir)
    holder = RouterHolder(shelf, lambda path: Router.load(config, path), telemetry)
    ladder = holder.current.ladder
    rng = np.random.default_rng(settings.seed)
    rollout = Rollout(
        holder,
        shelf,
        rollout_settings(config),
        workers=settings.workers,
        clock=clock,
        now_s=now_s,
        rng=rng.spawn(1)[0],
        count=telemetry.rollout,
    )
    health = Health(ladder, failures=settings.breaker_failures, open_s=settings.breaker_s, on_change=telemetry.circuit)
    recall = Recall(settings, time.monotonic)
    telemetry.watch_size("sessions", lambda: len(recall.sessions))
    telemetry.watch_size("templates", lambda: len(recall.memory))
    recorder = Recorder(
        store,
        spill=settings.spill,
        queue_size=settings.queue_size,
        batch_size=settings.batch_size,
        flush_s=settings.flush_s,
        retention=None if (days := config.store.retention_days) is None else timedelta(days=days),
        now=clock,
    )
    telemetry.watch(recorder)
    telemetry.watch_traffic(shelf.directory, clock)
    limits = Limits()
    shared = shared_limits_of(settings, environ, limits, telemetry.limits_shared)
    service = Service(
        config=config,
        settings=settings,
        shelf=shelf,
        holder=holder,
        rollout=rollout,
        upstream=upstream
        or HttpUpstream(settings, environ, tiers=config.ladder or (), health=health, on_retry=telemetry.retry),
        health=health,
        recorder=recorder,
        telemetry=telemetry,
        background=BackgroundCalls(settings.background),
        authorizer=authorizer_of(settings, tenants_of(config, ladder), environ),
        limits=limits,
        recall=recall,
        tracing=tracing,
        ids=DecisionIds(),
        clock=clock,
        rng=rng,
        started=clock(),
    )
    _warn_of_unreachable_tiers(config, environ)
    return _application(service, store, shared)


def _warn_of_unreachable_tiers(config: Config, environ: Mapping[str, str]) -> None:
    # The service starts all the same: for decisions alone, no upstream is needed.
    for tier in config.ladder or ():
        if tier.base_url is None:
            log.warning("tier_without_base_url", extra={"tier": tier.name})
        elif tier.api_key_env is not None and not environ.get(tier.api_key_env):
            log.warning("tier_key_not_set", extra={"tier": tier.name, "variable": tier.api_key_env})


def app_from_environment() -> ASGIApp:
    """Put a service together in a worker process, from the file that `ROUTER_ML_CONFIG` names."""
    path = os.environ.get(CONFIG_ENV)
    config = load_config(Path(path) if path else None, os.environ)
    settings = serving_settings(config)
    logs.configure(settings.log_level, settings.log_format)
    app = create_app(settings, config, store=open_store(config.store.url))
    return logs.LogRequests(app) if settings.log_requests else app


def _give_back_memory() -> None:
    # What importing and loading have freed stays with the process until it is asked for; other C libraries cannot.
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _application(service: Service, store: EventStore, shared: SharedLimits | None) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        if isinstance(service.upstream, HttpUpstream):
            await service.upstream.start()
        await service.recorder.start()
        tasks = [asyncio.create_task(service.rollout.watch(service.settings.reload_s), name="champion-watcher")]
        if shared is not None:
            tasks.append(asyncio.create_task(shared.run(), name="shared-limits"))
        # What was loaded so far stays for ever: looking through it again cost a tenth of the processor time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECT_EVERY)
        _give_back_memory()
        service.ready = True
        # For what is refused before it is a request: see guard.
        yield {"count": service.telemetry.request}
        service.ready = False
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Before the recorder: what is cancelled here is billed there.
        await service.background.close()
        if shared is not None:
            await shared.close()
        await service.recorder.close()
        if isinstance(service.upstream, HttpUpstream):
            await service.upstream.close()
        if service.tracing is not None:
            await asyncio.to_thread(service.tracing.close)
        store.close()

    routes = [route for name in ROUTERS for route in ROUTERS.load(name)(service)]
    described = service.settings.docs or is_loopback(service.settings.host)
    app = Front(
        shortcuts={route.path: route.endpoint for route in routes if "POST" in (route.methods or ())},
        count=service.telemetry.request,
        title="router-ml",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url="/docs" if described else None,
        openapi_url="/openapi.json" if described else None,
        redoc_url=None,
    )
    # Routes are matched in order: ours come before those of the documentation.
    app.router.routes[:0] = routes
    problems.install(app)
    paths = frozenset(getattr(route, "path", "") for route in app.router.routes)
    app.add_middleware(CountRequests, telemetry=service.telemetry, paths=paths)
    return app
