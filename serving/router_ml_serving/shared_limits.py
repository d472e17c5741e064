"""One allowance for all replicas: each decides from its own memory, and they settle with each other over Redis.

Twice a second a replica tells Redis what its tenants took, in one round trip, and hears what all of them took together.
No request waits for that, and none is decided by asking. Between two rounds each replica knows what the others did
before the last one: decision 0031 says how far that may be off. While Redis is away, each counts by itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from router_ml.errors import ConfigError
from router_ml.registry import require
from router_ml_serving.buckets import Bucket, Share
from router_ml_serving.limits import Limits
from router_ml_serving.settings import ServingSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["SharedLimits", "shared_limits_of"]

log = logging.getLogger(__name__)

EVERY_S = 0.5
# Longer than a round trip within a region takes, shorter than anybody would wait for it.
_PATIENCE_S = 1.0
# Counters that one call of the script may hold Redis up for: about a millisecond.
_AT_ONCE = 200
# Adds up reports (five arguments each, see Report) and returns what is left, by the clock of Redis alone. A counter
# that is not there, or was missed for a while ("anew"), is taken from the replicas' own: the poorest of them is right.
_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] + t[2] / 1000000
local anew, said = ARGV[1] == '1', {}
for i, key in ipairs(KEYS) do
  local at = 5 * i - 3
  local own, plus, minus, most =
    tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local kept = tonumber(redis.call('GET', key) or '')
  local ttl = 86400
  if ARGV[at] == 'bucket' then
    if not kept then kept = now + own
    elseif anew then kept = math.max(kept, now + own)
    else kept = math.max(kept, now) + plus end
    said[i] = kept - now
    ttl = math.ceil(math.max(0, said[i])) + 60
  else
    if not kept then kept = own
    elseif anew then kept = math.min(kept, own)
    else kept = math.min(kept + plus, most) - minus end
    said[i] = kept
  end
  redis.call('SET', key, string.format('%.17g', kept), 'EX', ttl)
  said[i] = string.format('%.9f', said[i])
end
return said
"""


class _AwayError(Exception):
    """Redis did not answer in time, or not as it should; the cause is not a secret."""


class SharedLimits:
    """Settles the limits of this replica with those of the others.

    Args:
        limits: Of this replica.
        redis: The client; closed by `close`.
        told: Called with whether Redis answered, after every exchange.
        every_s: Seconds between two exchanges.
        clock: Seconds that only go up, the same as that of `limits`.
    """

    def __init__(
        self,
        limits: Limits,
        redis: Redis,
        told: Callable[[bool], None],
        *,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = limits
        self._redis = redis
        self._told = told
        self._every_s = every_s
        self._clock = clock
        self._keys: dict[tuple[str | None, str], str] = {}
        self._is_away = False

    async def run(self) -> None:
        """Exchange for ever; cancelled when the service stops."""
        while True:
            try:
                await self.exchange()
            except Exception:  # outermost loop: whatever happens, the next exchange is tried
                log.exception("shared_limits_failed")
            await asyncio.sleep(self._every_s)

    async def exchange(self) -> bool:
        """Tell Redis what was taken since the last time, and hear what all replicas have taken; say whether it did."""
        now_s = self._clock()
        counters = [
            (self._key(tenant, what), counter)
            for tenant, what, counter in self._limits.counters()
            if self._is_away or not counter.is_idle(now_s)
        ]
        try:
            said = await self._ask(counters, now_s)
        except _AwayError as error:
            self._note(error)
            return False
        now_s = self._clock()
        for (_, counter), value in zip(counters, said, strict=True):
            counter.hear(value, now_s)
        self._note(None)
        return True

    async def close(self) -> None:
        """Tell what is left to tell, and close the connection."""
        await self.exchange()
        await self._redis.aclose()

    async def _ask(self, counters: Sequence[tuple[str, Bucket | Share]], now_s: float) -> list[float]:
        from redis.exceptions import RedisError

        pipeline = self._redis.pipeline(transaction=False)
        # At least one call, though there is nothing to tell: whether Redis is there is to be known before it matters.
        for start in range(0, len(counters) or 1, _AT_ONCE):
            some = counters[start : start + _AT_ONCE]
            arguments = [part for _, counter in some for part in counter.report(now_s)]
            pipeline.eval(_SCRIPT, len(some), *(key for key, _ in some), int(self._is_away), *arguments)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                replies = cast("list[list[bytes]]", await pipeline.execute())
        except (RedisError, OSError, TimeoutError) as error:
            raise _AwayError(type(error).__name__) from error
        return [float(one) for reply in replies for one in reply]

    def _note(self, error: _AwayError | None) -> None:
        # Once per episode. The cause is the name of the error: its text may quote the address.
        if error is not None and not self._is_away:
            log.warning("shared_limits_away", extra={"cause": str(error), "meanwhile": "each replica counts by itself"})
        elif error is None and self._is_away:
            log.info("shared_limits_back")
        self._is_away = error is not None
        self._told(error is None)

    def _key(self, tenant: str | None, what: str) -> str:
        key = self._keys.get((tenant, what))
        if key is None:
            # A tenant's name is nobody's business but the router's.
            who = "everybody" if tenant is None else hashlib.sha256(tenant.encode(errors="replace")).hexdigest()[:32]
            key = self._keys[tenant, what] = f"router_ml:limits:{who}:{what}"
        return key


def shared_limits_of(
    settings: ServingSettings, environ: Mapping[str, str], limits: Limits, told: Callable[[bool], None]
) -> SharedLimits | None:
    """Return what settles limits with other replicas, or None without `serving.redis_env`; nothing is contacted yet.

    Args:
        settings: `[serving]` of the configuration.
        environ: Where the URL of Redis is looked up.
        limits: Of this replica.
        told: See `SharedLimits`.

    Raises:
        ConfigError: When the variable is not set, or holds no URL of a Redis server.
        MissingExtra: When the client of Redis is not installed.
    """
    if settings.redis_env is None:
        return None
    url = environ.get(settings.redis_env)
    if not url:
        raise ConfigError(
            f"serving.redis_env: the environment variable {settings.redis_env} is not set; "
            "set it to the URL of a Redis server, such as redis://localhost:6379/0"
        )
    client = require("redis.asyncio", extra="redis", why="share limits between replicas (serving.redis_env)")
    retry = require("redis.asyncio.retry", extra="redis", why="share limits between replicas (serving.redis_env)")
    backoff = require("redis.backoff", extra="redis", why="share limits between replicas (serving.redis_env)")
    try:
        # No tries within an exchange: the next one is half a second away.
        redis = client.Redis.from_url(url, retry=retry.Retry(backoff.NoBackoff(), 0), max_connections=2)
    except ValueError:
        # Not the cause: a password may stand in an unexpected place.
        message = (
            f"{settings.redis_env}: not the URL of a Redis server; expected something like redis://localhost:6379/0"
        )
        raise ConfigError(message) from None
    return SharedLimits(limits, redis, told)
