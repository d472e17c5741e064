"""Which router serves: loaded once, watched for a new champion, swapped by one assignment, never by a bad bundle."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from router_ml.errors import BundleCorrupt, RouterError
from router_ml.router import Router
from router_ml.schema import Request
from router_ml.shelf import Shelf
from router_ml_serving.telemetry import Telemetry

__all__ = ["RouterHolder"]

log = logging.getLogger(__name__)

_SMOKE_TEST = (
    Request(messages=[{"role": "user", "content": "What is 2 + 2?"}]),
    Request(
        messages=[{"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": "Ja"}]}]
    ),
)


class RouterHolder:
    """Holds the router in service; a request takes `current` once and keeps it to its end.

    Args:
        shelf: Where the champion is named.
        load: Makes a router from a bundle folder.
        telemetry: Counts loads and refusals.
    """

    def __init__(self, shelf: Shelf, load: Callable[[Path], Router], telemetry: Telemetry) -> None:
        self._shelf = shelf
        self._load = load
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._refused: Path | None = None
        self._path = shelf.champion_path()
        self.current = self._tested(self._path)
        telemetry.reload("loaded", self.current.bundle.version)

    def refresh(self, *, force: bool = False) -> bool:
        """Load the champion if it is another than the one in service.

        Args:
            force: Load it again in any case.

        Returns:
            Whether another router is in service now.

        Raises:
            RouterError: When the champion cannot be used; the router in service stays.
        """
        with self._lock:
            path = self._shelf.champion_path()
            if not force and path in (self._path, self._refused):
                return False
            try:
                router = self._tested(path)
            except Exception:
                self._refused = path
                self._telemetry.reload("refused")
                raise
            before, self.current = self.current.bundle.version, router
            self._path, self._refused = path, None
        version = router.bundle.version
        self._telemetry.reload("loaded", version)
        log.info("bundle_loaded", extra={"version": version, "before": before})
        return version != before

    async def watch(self, every_s: float) -> None:
        """Look at the champion pointer for ever; what cannot be used is logged once and left alone.

        Args:
            every_s: Time between two looks.
        """
        said = ""
        while True:
            await asyncio.sleep(every_s)
            try:
                await asyncio.to_thread(self.refresh)
                said = ""
            except RouterError as error:
                if str(error) != said:
                    said = str(error)
                    serving = self.current.bundle.version
                    log.warning("bundle_refused", extra={"reason": said, "still_serving": serving})
            except OSError as error:
                log.warning("champion_unreadable", extra={"reason": str(error)})
            except Exception:  # outermost loop: whatever one bundle does, the next one is looked at
                log.exception("reload_failed")

    def _tested(self, path: Path) -> Router:
        # A bundle that loads may still not decide: two requests go through before anyone's does.
        router = self._load(path)
        rng = np.random.default_rng(0)
        for request in _SMOKE_TEST:
            decision = router.route(request, decision_id="smoke-test", rng=rng)
            if decision.tier not in router.ladder.names or not all(
                np.isfinite(value) for value in (*decision.adequacy.values(), *decision.propensity.values())
            ):
                raise BundleCorrupt(f"{path.name}: decides nonsense on a simple request; export it again")
        return router
