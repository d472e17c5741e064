"""When a failed call to an upstream is tried again: after which pause, for how long, and how many of all calls.

Full jitter: Brooker 2015, "Exponential Backoff And Jitter". Own lines in place of a retry library: the pause depends on
what the upstream asked for and on the time left, and a token bucket has a say; only the loop would be the library's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from router_ml.errors import UpstreamError

__all__ = ["TRANSIENT", "Retries", "RetryBudget", "retry_after_s"]

# Statuses that may be gone in a moment. 501 and 505 say that the upstream will never do this.
TRANSIENT = frozenset({429, 500, 502, 503, 504, 529})
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 4.0
# Retries may be this share of the calls, and a few more: a storm of errors is not answered with three times the load.
_SHARE = 0.2
_SPARE = 10.0


@dataclass(frozen=True, slots=True)
class Retries:
    """The rule for one call.

    Args:
        limit: Tries after the first.
        uniform: Draws a number between its two arguments.
    """

    limit: int
    uniform: Callable[[float, float], float]

    def pause_s(self, error: UpstreamError, *, tried: int, asked_s: float | None, left_s: float) -> float | None:
        """Say how long to wait before the next try, or None when this failure is final.

        A timeout after the connection stood is final, and so is a connection that broke: the upstream may have worked.

        Args:
            error: How the last try failed.
            tried: Retries so far.
            asked_s: What the upstream wants waited at least; None when it did not say.
            left_s: Time until nobody waits for the answer any more.
        """
        if tried >= self.limit or not (error.kind == "connect" or error.status in TRANSIENT):
            return None
        least_s = asked_s or 0.0
        room_s = left_s - least_s
        if room_s <= 0.0:
            return None
        return least_s + self.uniform(0.0, min(_FIRST_PAUSE_S * 2.0**tried, _LONGEST_PAUSE_S, room_s))


class RetryBudget:
    """A token bucket: retries of one tier are at most a fifth of its calls, and ten more."""

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = _SPARE

    def called(self) -> None:
        """Count a call (not a retry)."""
        self._tokens = min(self._tokens + _SHARE, _SPARE)

    def take(self) -> bool:
        """Take one retry out of the budget; False when it is used up."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def retry_after_s(headers: Mapping[str, str], now: Callable[[], datetime]) -> float | None:
    """Return how long a response asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as an HTTP date.

    A date is compared with the response's own `Date`, so that the two clocks need not agree.

    Args:
        headers: Of the response, found by any spelling of their names.
        now: The time of day (UTC), asked only when a date comes without a `Date` beside it.

    Returns:
        Seconds, 0 for a date in the past; None when nothing usable is said.

    Source: RFC 9110, section 10.2.3.
    """
    said_ms = _number(headers.get("retry-after-ms"))
    if said_ms is not None:
        return said_ms / 1e3
    said = headers.get("retry-after")
    seconds = _number(said)
    if seconds is not None:
        return seconds
    until = _date(said)
    if until is None:
        return None
    return max((until - (_date(headers.get("date")) or now())).total_seconds(), 0.0)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0.0 else None


def _date(text: str | None) -> datetime | None:
    try:
        when = parsedate_to_datetime(text or "")
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)
