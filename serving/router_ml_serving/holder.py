"""Holds the routers in service: loaded and tried once, swapped by one assignment, never by a bad bundle."""

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

_CHAMPION, _CHALLENGER = "champion", "challenger"
_SMOKE_TEST = (
    Request(messages=[{"role": "user", "content": "What is 2 + 2?"}]),
    Request(
        messages=[{"role": "system", "content": ""}, {"role": "user", "content": [{"type": "text", "text": "Ja"}]}]
    ),
)


class RouterHolder:
    """Holds the champion's router and, if there is one, the challenger's; a request takes one and keeps it to its end.

    `challenger_share` is what the challenger file says, None when it says nothing.

    Args:
        shelf: Where champion and challenger are named.
        load: Makes a router from a bundle folder.
        telemetry: Counts loads and refusals.
    """

    def __init__(self, shelf: Shelf, load: Callable[[Path], Router], telemetry: Telemetry) -> None:
        self._shelf = shelf
        self._load = load
        self._telemetry = telemetry
        self._lock = threading.Lock()
        self._refused: dict[str, tuple[_Seen, str]] = {}
        self._unreadable = ""
        self._path = shelf.champion_path()
        self._challenger_path: Path | None = None
        self.current = self._tested(self._path)
        self.challenger: Router | None = None
        self.challenger_share: float | None = None
        telemetry.reload("loaded", self.current.bundle.version)

    def refresh(self, *, force: bool = False) -> bool:
        """Load champion and challenger if they are others than those in service.

        A bundle that was refused is tried again when a file of it changed: it may have been half copied.

        Args:
            force: Load the champion again in any case.

        Returns:
            Whether another champion is in service now.

        Raises:
            RouterError: When the champion cannot be used; the one in service stays. A challenger that cannot be used
                is left out, and `refusals` says why.
        """
        with self._lock:
            try:
                changed = self._refresh_champion(force=force)
            finally:
                self._refresh_challenger()
        return changed

    def refusals(self) -> dict[str, str]:
        """Return why what the shelf names is not in service, by role; empty when it is."""
        return {role: why for role, (_, why) in self._refused.items()}

    async def look(self) -> None:
        """Refresh in the background; what cannot be used is logged once and left alone."""
        try:
            await asyncio.to_thread(self.refresh)
            self._unreadable = ""
        except RouterError:
            pass  # logged where it was refused
        except OSError as error:
            if str(error) != self._unreadable:
                self._unreadable = str(error)
                log.warning("champion_unreadable", extra={"reason": self._unreadable})
        except Exception:  # called for ever: whatever one bundle does, the next one is looked at
            log.exception("reload_failed")

    def _refresh_champion(self, *, force: bool) -> bool:
        path: Path | None = None
        try:
            path = self._shelf.champion_path()
            if not force and (path == self._path or self._was_refused(_CHAMPION, path)):
                if path == self._path:
                    self._refused.pop(_CHAMPION, None)
                return False
            router = self._tested(path)
        except Exception as error:
            self._refuse(_CHAMPION, path, error)
            raise
        before, self.current = self.current.bundle.version, router
        self._path = path
        self._refused.pop(_CHAMPION, None)
        version = router.bundle.version
        self._telemetry.reload("loaded", version)
        log.info("bundle_loaded", extra={"version": version, "before": before})
        return version != before

    def _refresh_challenger(self) -> None:
        path: Path | None = None
        try:
            found = self._shelf.challenger()
            path = None if found is None else self._shelf.path(found.version)
            if path != self._challenger_path and (path is None or not self._was_refused(_CHALLENGER, path)):
                self.challenger = None if path is None else self._tested(path)
                self._challenger_path = path
                log.info("challenger_changed", extra={"version": None if found is None else found.version})
            elif path != self._challenger_path:
                self.challenger, self._challenger_path = None, None
            self.challenger_share = None if found is None else found.share
        except Exception as error:
            # Nobody depends on it: without one that can be used, the champion answers everything.
            self.challenger, self._challenger_path = None, None
            self._refuse(_CHALLENGER, path, error)
            if not isinstance(error, RouterError | OSError):
                raise
            return
        if path is None or path == self._challenger_path:
            self._refused.pop(_CHALLENGER, None)

    def _was_refused(self, role: str, path: Path) -> bool:
        return role in self._refused and self._refused[role][0] == _seen(path)

    def _refuse(self, role: str, path: Path | None, error: Exception) -> None:
        why = str(error) if isinstance(error, RouterError) else type(error).__name__
        if self._refused.get(role, (None, None))[1] != why:
            self._telemetry.reload("refused")
            serving = self.current.bundle.version
            log.warning("bundle_refused", extra={"role": role, "reason": why, "still_serving": serving})
        self._refused[role] = (_seen(path), why)

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


# What a folder looked like: its path, and name, time and size of its files.
_Seen = tuple[Path | None, frozenset[tuple[str, int, int]]]


def _seen(path: Path | None) -> _Seen:
    found: set[tuple[str, int, int]] = set()
    try:
        for file in () if path is None else path.iterdir():
            facts = file.stat()
            found.add((file.name, facts.st_mtime_ns, facts.st_size))
    except OSError:  # it went away while it was looked at: not what it was before, in any case
        found.clear()
    return path, frozenset(found)
