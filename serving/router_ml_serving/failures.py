"""What can go wrong between the service and an upstream, as errors that say neither prompt nor secret."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import lru_cache

import aiohttp
import orjson

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.retry import retry_after_s

__all__ = ["CircuitOpen", "KeyRefused", "RefusedByUpstream", "forwarded", "named", "refusal", "refusal_in_stream"]

log = logging.getLogger(__name__)

# When to come back, and what to name to the provider's support. Whose account it is, and how much of its allowance is
# left for all of our clients together, is between the upstream and us.
_FORWARDED = frozenset({"retry-after", "x-request-id", "openai-processing-ms", "openai-version", "openai-model"})

_STATUS = re.compile("[45][0-9][0-9]")


class RefusedByUpstream(UpstreamError):
    """The upstream answered with an error status.

    `headers` are those worth handing on (`retry-after`, …), `asked_s` is how long it wants waited, if it said so.
    """

    def __init__(
        self, message: str, *, status: int, body: bytes, headers: Mapping[str, str], asked_s: float | None = None
    ) -> None:
        super().__init__(message, kind="status", status=status, body=body)
        self.headers = dict(headers)
        self.asked_s = asked_s


class CircuitOpen(UpstreamError):
    """The tier was not called: it has been failing. `headers` say when it is tried again."""

    def __init__(self, tier: str, again_s: float) -> None:
        seconds = max(math.ceil(again_s), 1)
        super().__init__(f"tier '{tier}' has been failing and is not called; tried again in {seconds} s", kind="open")
        self.headers = {"retry-after": str(seconds)}


class KeyRefused(UpstreamError):
    """The upstream refused the router's own key: unlike other 4xx, that is no matter of the request."""


def named(tier: Tier, error: Exception) -> UpstreamError:
    """Turn a failure of the HTTP client into an error with a kind; what the client says itself may hold credentials."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return _failure(tier, "connect", f"cannot be reached at {error.host}:{error.port}")
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _failure(tier, "connect", "cannot be reached: no connection within connect_s")
    if isinstance(error, TimeoutError):
        return _failure(tier, "timeout", "did not answer in time")
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return _failure(tier, "reset", "broke off its answer")
    return _failure(tier, "protocol", f"does not speak the expected protocol ({type(error).__name__})")


def _failure(tier: Tier, kind: str, said: str) -> UpstreamError:
    log.warning("upstream_failed", extra={"tier": tier.name, "kind": kind})
    return UpstreamError(f"tier '{tier.name}' {said}", kind=kind)


def refusal(
    tier: Tier,
    response: aiohttp.ClientResponse,
    body: bytes,
    now: Callable[[], datetime],
    *,
    status: int | None = None,
) -> UpstreamError:
    """Turn a response that is not a 200 into an error.

    Args:
        tier: Who sent it.
        response: Its status and headers.
        body: What it said.
        now: The time of day (UTC), for a `Retry-After` that is a date.
        status: The status in effect, where it is not the response's own.
    """
    status = response.status if status is None else status
    if status in (401, 403):
        # Handing this on would send the client looking for a fault in its own key.
        where = f"the variable {tier.api_key_env}" if tier.api_key_env else "api_key_env of the tier"
        message = f"tier '{tier.name}' refused the router's key (HTTP {status}); check {where}"
        return KeyRefused(message, kind="status") if status == 401 else UpstreamError(message, kind="status")
    message = f"tier '{tier.name}' answered with HTTP {status}"
    if not 400 <= status < 600:
        return UpstreamError(message, kind="status")
    asked_s = retry_after_s(response.headers, now)
    headers = forwarded(response.headers)
    return RefusedByUpstream(message, status=status, body=body, headers=headers, asked_s=asked_s)


def refusal_in_stream(
    tier: Tier, response: aiohttp.ClientResponse, payload: bytes, now: Callable[[], datetime]
) -> UpstreamError:
    """Turn a stream whose first event is an error into the error that it would have been as a response.

    Args:
        tier: Who sent it.
        response: Its headers.
        payload: The event: a JSON object with `error`, whose `status` or `code` may be one of HTTP; else it is 502.
        now: The time of day (UTC).
    """
    said = orjson.loads(payload)["error"]
    facts = [said.get(name) for name in ("status", "code")] if isinstance(said, dict) else []
    numbers = [int(fact) for fact in facts if isinstance(fact, int | str) and _STATUS.fullmatch(str(fact))]
    return refusal(tier, response, payload, now, status=numbers[0] if numbers else 502)


def forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the response headers that are worth handing on to the client, in lower case."""
    return {kept: value for name, value in headers.items() if (kept := _kept(name)) is not None}


@lru_cache(maxsize=1024)
def _kept(name: str) -> str | None:
    lower = name.lower()
    return lower if lower in _FORWARDED else None
