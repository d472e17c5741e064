"""How much a tenant may have: requests and tokens per minute, its tiers, and its share of the dearest one.

Everything here is a few floats per tenant in the memory of one worker process; `shared_limits` settles them with other
processes, where that is wanted. Of the library `limits`, measured for this, a hit cost 4 to 12 us and 35 us with 2,000
tokens, where these buckets take about 1 us: decision 0018.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from router_ml_serving.auth import Caller
from router_ml_serving.buckets import Bucket, Share
from router_ml_serving.problems import RateLimited, TierNotAllowed
from router_ml_serving.tenants import TenantRules

__all__ = ["Limits"]

# What rounding of large clock readings can make out of nothing, with room to spare.
_SLACK_S = 1e-6
_NONE: Mapping[str, str] = {}


@dataclass(slots=True)
class _Account:
    rules: TenantRules
    requests: Bucket | None
    tokens: Bucket | None
    share: Share | None
    ladder: tuple[str, ...] = ()
    # The tiers of that ladder that the tenant may use, and those without the dearest.
    every: frozenset[str] | None = None
    cheaper: frozenset[str] = field(default_factory=frozenset)


class Limits:
    """What every tenant has used; one object per worker process, for one event loop.

    Args:
        clock: Seconds that only go up.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Callers are tenants with a key or a section of their own, and everybody else as one: this cannot grow at will.
        self._accounts: dict[str | None, _Account] = {}

    def admit(self, caller: Caller, *, tokens: float = 0.0, requests: int = 1) -> float:
        """Let a request in, and set aside the tokens that it will probably need.

        A limit of tokens holds back the request after the one that used them up, so that a long prompt is late but
        not impossible.

        Args:
            caller: Who asks.
            tokens: Estimate for its prompt; 0 for what calls no upstream. At most a minute's worth is set aside.
            requests: How many requests it stands for, such as those of a batch.

        Returns:
            The tokens that were set aside: hand them back to `settle`.

        Raises:
            RateLimited: When the tenant has to wait.
        """
        account = self._account(caller)
        if account.requests is None and account.tokens is None:
            return 0.0
        now_s = self._clock()
        self._check(account, tokens, requests, now_s)
        return _take(account, tokens, requests, now_s)

    def admit_all(self, callers: Sequence[Caller]) -> None:
        """Let a batch of requests in that call no upstream: all of them, or none.

        Args:
            callers: Who asks, one for each request; they may be different tenants.

        Raises:
            RateLimited: When one of the tenants has to wait; nothing was taken from any of them.
        """
        asked = Counter(caller.tenant for caller in callers)
        now_s = self._clock()
        accounts = [(self._account(caller), asked.pop(caller.tenant)) for caller in callers if caller.tenant in asked]
        for account, requests in accounts:
            self._check(account, 0.0, requests, now_s)
        for account, requests in accounts:
            _take(account, 0.0, requests, now_s)

    def _check(self, account: _Account, tokens: float, requests: int, now_s: float) -> None:
        wait_s, what = 0.0, ""
        if account.requests is not None:
            # A batch larger than a minute's worth could never come in: a full bucket lets it, and is overdrawn.
            wait_s = account.requests.wait_s(min(requests, account.requests.per_minute), now_s)
            what = "requests"
        if account.tokens is not None and tokens and account.tokens.left(now_s) <= 0.0:
            wait_s, what = max((wait_s, what), (account.tokens.wait_s(1.0, now_s), "tokens"))
        if wait_s > _SLACK_S:
            raise self._limited(account, what, wait_s, now_s)

    def settle(self, caller: Caller, *, aside: float, used: float) -> None:
        """Charge what upstreams counted instead of what was set aside, once the request is over.

        Args:
            caller: Who asked.
            aside: What `admit` returned.
            used: Tokens of prompts and answers of all attempts, 0 when nothing was called.
        """
        account = self._account(caller)
        if account.tokens is not None:
            account.tokens.take(used - aside, self._clock())

    def allowed(self, caller: Caller, ladder: tuple[str, ...]) -> frozenset[str] | None:
        """Return the tiers that may answer this tenant now; None means any, and it is never empty.

        Args:
            caller: Who asks.
            ladder: Names of the tiers in service, cheapest first.
        """
        account = self._account(caller)
        if account.share is None and account.rules.tiers is None:
            return None
        if account.ladder != ladder:
            _know(account, ladder)
        if account.share is None or account.share.allows():
            return account.every
        return account.cheaper

    def check_named(self, caller: Caller, tier: str, ladder: tuple[str, ...]) -> None:
        """Check a tier that the client has named itself, so that the router does not choose.

        Raises:
            TierNotAllowed: When the tenant may not use it, or has used up its share of it.
        """
        allowed = self.allowed(caller, ladder)
        if allowed is None or tier in allowed:
            return
        rules = caller.rules
        if rules.tiers is not None and tier not in rules.tiers:
            which, ask = f"{rules.source}.tiers does not list it", f"'auto' or {', '.join(sorted(allowed))}"
        else:
            which, ask = f"the share of {rules.source}.max_large_share ({rules.max_large_share:g}) is used up", "'auto'"
        raise TierNotAllowed(f"the tier '{tier}' may not answer: {which}; ask for {ask}")

    def note(self, caller: Caller, tiers: Container[str], ladder: tuple[str, ...]) -> None:
        """Count a request that is over, for the share of the dearest tier.

        Args:
            caller: Who asked.
            tiers: Every tier that a call for it reached, escalations included.
            ladder: As for `allowed`.
        """
        share = self._account(caller).share
        if share is not None:
            share.count(large=ladder[-1] in tiers)

    def headers(self, caller: Caller) -> Mapping[str, str]:
        """Return OpenAI's `x-ratelimit-*` headers of a tenant; empty when it has no limits."""
        account = self._account(caller)
        if account.requests is None and account.tokens is None:
            return _NONE
        return _standing(account, self._clock())

    def counters(self) -> Iterator[tuple[str | None, str, Bucket | Share]]:
        """Yield everything that is counted, as tenant, name and counter; the tenant is None for everybody else."""
        for tenant, account in self._accounts.items():
            for what, counter in (("requests", account.requests), ("tokens", account.tokens), ("share", account.share)):
                if counter is not None:
                    yield tenant, what, counter

    def _account(self, caller: Caller) -> _Account:
        account = self._accounts.get(caller.tenant)
        if account is None:
            account = self._accounts[caller.tenant] = _opened(caller.rules)
        return account

    def _limited(self, account: _Account, what: str, wait_s: float, now_s: float) -> RateLimited:
        key = f"{account.rules.source}.{what}_per_minute"
        per_minute = getattr(account.rules, f"{what}_per_minute")
        headers = {"retry-after": str(max(1, math.ceil(wait_s - _SLACK_S))), **_standing(account, now_s)}
        message = f"more than {per_minute:g} {what} per minute ({key}); try again in {_duration(wait_s)}"
        return RateLimited(message, headers=headers)


def _opened(rules: TenantRules) -> _Account:
    requests, tokens, share = rules.requests_per_minute, rules.tokens_per_minute, rules.max_large_share
    return _Account(
        rules,
        None if requests is None else Bucket(requests),
        None if tokens is None else Bucket(tokens),
        None if share is None or share >= 1.0 else Share(share),
    )


def _take(account: _Account, tokens: float, requests: int, now_s: float) -> float:
    if account.requests is not None:
        account.requests.take(requests, now_s)
    if account.tokens is None:
        return 0.0
    aside = min(tokens, account.tokens.per_minute)
    account.tokens.take(aside, now_s)
    return aside


def _know(account: _Account, ladder: tuple[str, ...]) -> None:
    every = frozenset(ladder) if account.rules.tiers is None else account.rules.tiers & frozenset(ladder)
    # A bundle may bring a ladder with none of the tenant's tiers: its cheapest is the safest guess at what was meant.
    every = every or frozenset(ladder[:1])
    account.ladder = ladder
    account.every = every
    account.cheaper = every - {ladder[-1]} or every


def _standing(account: _Account, now_s: float) -> dict[str, str]:
    said = {}
    for what, bucket in (("requests", account.requests), ("tokens", account.tokens)):
        if bucket is not None:
            said[f"x-ratelimit-limit-{what}"] = f"{bucket.per_minute:.0f}"
            said[f"x-ratelimit-remaining-{what}"] = str(max(0, int(bucket.left(now_s) + _SLACK_S)))
            said[f"x-ratelimit-reset-{what}"] = _duration(max(0.0, bucket.full_at_s - now_s))
    return said


def _duration(seconds: float) -> str:
    """Write a time as OpenAI's headers do: `350ms`, `7.2s`, `6m0s`."""
    seconds = max(0.0, seconds - _SLACK_S)
    thousandths, tenths = math.ceil(seconds * 1e3), math.ceil(seconds * 10)
    if thousandths < 1000:
        return f"{thousandths}ms" if thousandths else "0s"
    if tenths < 600:
        return f"{tenths / 10:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"
