"""The client of the tiers' model endpoints: OpenAI's wire format over aiohttp, one pooled session."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import orjson

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.settings import ServingSettings

__all__ = ["HttpUpstream", "RefusedByUpstream", "Reply", "Upstream"]

log = logging.getLogger(__name__)

# What an upstream says about limits and its own request id is of use to the client; the rest is between the two of us.
_FORWARDED = ("retry-after", "x-request-id", "x-ratelimit-", "openai-")
# Shorter than the idle timeout of common servers, so that a pooled connection is rarely a dead one.
_POOL_KEEPALIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of an upstream: the bytes as they came, and the same parsed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    parsed: dict[str, Any]


class RefusedByUpstream(UpstreamError):
    """The upstream answered with an error status; `headers` are those worth handing on (`retry-after`, …)."""

    def __init__(self, message: str, *, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(message, kind="status", status=status, body=body)
        self.headers = dict(headers)


class Upstream(Protocol):
    """Calls one tier; raises `UpstreamError` and nothing else when that fails."""

    async def complete(self, tier: Tier, body: bytes) -> Reply:
        """Return the whole answer to one chat body."""
        ...

    def stream(self, tier: Tier, body: bytes) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a streamed answer as they arrive; closing the generator cancels the call."""
        ...


class HttpUpstream:
    """An `Upstream` over HTTP; call `start` in a running event loop before the first request, and `close` at the end.

    Args:
        settings: Timeouts.
        environ: Where the tiers' keys are looked up (`Tier.api_key_env`).
    """

    def __init__(self, settings: ServingSettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Open the connection pool."""
        timeout = aiohttp.ClientTimeout(
            total=self._settings.total_s, sock_connect=self._settings.connect_s, sock_read=self._settings.idle_s
        )
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_POOL_KEEPALIVE_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        """Close the connection pool."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, tier: Tier, body: bytes) -> Reply:
        """Return the whole answer of a tier to one chat body.

        Raises:
            UpstreamError: When it did not answer, answered with an error status, or with something else than JSON.
        """
        with _named_errors(tier):
            async with self._post(tier, body) as response:
                raw = await response.read()
                headers = _forwarded(response.headers)
                if response.status != 200:
                    raise _refusal(tier, response.status, raw, headers)
                return Reply(response.status, headers, raw, _parsed(tier, raw))

    async def stream(self, tier: Tier, body: bytes) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a tier's streamed answer as they arrive.

        Raises:
            UpstreamError: Before the first byte for an error status, later when the stream breaks off.
        """
        with _named_errors(tier):
            async with self._post(tier, body) as response:
                if response.status != 200:
                    raise _refusal(tier, response.status, await response.read(), _forwarded(response.headers))
                if response.content_type != "text/event-stream":
                    message = f"tier '{tier.name}' was asked for a stream and sent {response.content_type}"
                    raise UpstreamError(message, kind="protocol")
                async for chunk in response.content.iter_any():
                    yield chunk

    def _post(self, tier: Tier, body: bytes) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            message = "the upstream client is not started"
            raise RuntimeError(message)
        if tier.base_url is None:
            message = f"tier '{tier.name}' has no base_url; set it under [[tiers]] in router.toml"
            raise UpstreamError(message, kind="connect")
        headers = {"content-type": "application/json"}
        key = self._environ.get(tier.api_key_env) if tier.api_key_env else None
        if key:
            headers["authorization"] = f"Bearer {key}"
        url = f"{tier.base_url.rstrip('/')}/chat/completions"
        return self._session.post(url, data=body, headers=headers, allow_redirects=False)


@contextmanager
def _named_errors(tier: Tier) -> Iterator[None]:
    # Messages of aiohttp may hold URLs with credentials: only the kind of failure and the host are told.
    try:
        yield
    except TimeoutError as error:
        raise _failure(tier, "timeout", "did not answer in time") from error
    except aiohttp.ClientConnectorError as error:
        raise _failure(tier, "connect", f"cannot be reached at {error.host}:{error.port}") from error
    except (aiohttp.ServerConnectionError, aiohttp.ClientOSError, aiohttp.ClientPayloadError) as error:
        raise _failure(tier, "reset", "broke off its answer") from error
    except aiohttp.ClientError as error:
        message = f"does not speak the expected protocol ({type(error).__name__})"
        raise _failure(tier, "protocol", message) from error


def _failure(tier: Tier, kind: str, said: str) -> UpstreamError:
    log.warning("upstream_failed", extra={"tier": tier.name, "kind": kind})
    return UpstreamError(f"tier '{tier.name}' {said}", kind=kind)


def _refusal(tier: Tier, status: int, body: bytes, headers: Mapping[str, str]) -> UpstreamError:
    if status in (401, 403):
        # Handing this on would send the client looking for a fault in its own key.
        where = f"the variable {tier.api_key_env}" if tier.api_key_env else "api_key_env of the tier"
        message = f"tier '{tier.name}' refused the router's key (HTTP {status}); check {where}"
        return UpstreamError(message, kind="status")
    if not 400 <= status < 600:
        return UpstreamError(f"tier '{tier.name}' answered with HTTP {status}", kind="status")
    return RefusedByUpstream(
        f"tier '{tier.name}' answered with HTTP {status}", status=status, body=body, headers=headers
    )


def _parsed(tier: Tier, raw: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise UpstreamError(f"tier '{tier.name}' sent invalid JSON", kind="protocol") from error
    if not isinstance(parsed, dict):
        raise UpstreamError(f"tier '{tier.name}' sent JSON that is not an object", kind="protocol")
    return parsed


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if name.lower().startswith(_FORWARDED)}
