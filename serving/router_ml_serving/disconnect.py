"""Clients that hang up: noticed while somebody works for them, so that the work is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

__all__ = ["ClientGone", "unless_gone"]

T = TypeVar("T")
# How long a request runs before its client is watched.
_LOOK_AFTER_S = 0.02


class ClientGone(Exception):
    """The client hung up before its answer was complete."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` and return its result, but cancel it when the client hangs up.

    Args:
        receive: The ASGI channel, after the request body was read.
        work: What the client waits for.

    Raises:
        ClientGone: When the client hung up first; `work` has been cancelled and has ended.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  a coroutine that runs has one
    gone = False
    watcher: asyncio.Task[None] | None = None

    async def watch() -> None:
        nonlocal gone
        await _hang_up(receive)
        gone = True
        task.cancel()

    def start() -> None:
        nonlocal watcher
        watcher = asyncio.ensure_future(watch())

    # Most answers are here before anybody looks whether they are still wanted: a task each would cost more than that.
    alarm = asyncio.get_running_loop().call_later(_LOOK_AFTER_S, start)
    try:
        return await work
    except asyncio.CancelledError:
        if not gone:
            raise
        task.uncancel()
        raise ClientGone from None
    finally:
        alarm.cancel()
        if watcher is not None:
            watcher.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
