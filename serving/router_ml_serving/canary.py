"""The challenger beside the champion: which requests it answers, and what it would have decided on the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np

from router_ml.constraints import NOTHING_SPECIAL, Circumstances
from router_ml.router import Router
from router_ml.schema import Decision, Request

__all__ = ["ShadowDecisions", "is_drawn"]

_SPACE = 2**64


def is_drawn(version: str, key: str, share: float) -> bool:
    """Say whether the challenger answers a request.

    The same key always draws the same for one version, and anew for another.

    Args:
        version: The challenger's.
        key: What belongs together: the session's id, else the decision's.
        share: Of the keys, in [0, 1].
    """
    salt = blake2b(version.encode(), digest_size=16).digest()
    # Clients choose session ids: half a surrogate pair is one too.
    digest = blake2b(key.encode(errors="surrogatepass"), digest_size=8, salt=salt).digest()
    return int.from_bytes(digest, "big") < share * _SPACE


class ShadowDecisions:
    """What a challenger would have decided where the champion did, in the background and in bounded time.

    Called from one thread, after the answer. Time is bounded, not a queue: when decisions took more than their share of
    it, further ones are dropped until it is made up for. That depends on the load, never on the request.

    Args:
        router: The challenger's.
        rng: Its exploration draws.
        now_s: Monotonic clock, in seconds.
        time_share: Part of the time that decisions may take.
    """

    def __init__(
        self, router: Router, rng: np.random.Generator, now_s: Callable[[], float], *, time_share: float = 0.05
    ) -> None:
        self.dropped = 0
        self._router = router
        self._rng = rng
        self._now_s = now_s
        self._time_share = time_share
        self._free_at_s = now_s()
        self._n = 0
        self._agreed = 0
        self._tiers: dict[str, Counter[str]] = {"champion": Counter(), "challenger": Counter()}
        self._cost_usd = 0.0
        self._adequacy = 0.0

    def decide(
        self,
        request: Request,
        decision: Decision,
        *,
        quality: float | None = None,
        circumstances: Circumstances = NOTHING_SPECIAL,
    ) -> dict[str, Any] | None:
        """Decide a request once more, and count where the two differ.

        Args:
            request: What was asked.
            decision: The champion's.
            quality: As the champion's `route` was given it.
            circumstances: As the champion's `route` was given them.

        Returns:
            What goes into the record's tags: version, tier, plan and propensities; None when it was dropped: under
            load, or because the two do not have the same tiers.
        """
        started_s = self._now_s()
        names, tiers = self._router.ladder.names, tuple(decision.propensity)
        # Without a configured ladder each bundle brings its own: other tiers are no comparison, and another order is
        # not the one that latencies were measured in.
        if started_s < self._free_at_s or set(names) != set(tiers):
            self.dropped += 1
            return None
        if names != tiers:
            circumstances = replace(circumstances, latency_ms=None, ttft_ms=None)
        other = self._router.route(
            request,
            decision_id=decision.decision_id,
            rng=self._rng,
            quality=quality,
            circumstances=circumstances,
        )
        self._count(decision, other)
        ended_s = self._now_s()
        self._free_at_s = ended_s + (ended_s - started_s) * (1.0 / self._time_share - 1.0)
        return {
            "version": other.policy_version,
            "tier": other.tier,
            "escalate_to": other.plan.escalate_to,
            "explored": other.explored,
            "propensity": dict(other.propensity),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the counts; differences are challenger minus champion per request, by the champion's estimates."""
        n = self._n
        return {
            "n": n,
            "dropped": self.dropped,
            "agreement": self._agreed / n if n else None,
            "tiers": {who: dict(counts) for who, counts in self._tiers.items()},
            "expected_cost_usd_difference": self._cost_usd / n if n else None,
            "expected_adequacy_difference": self._adequacy / n if n else None,
        }

    def _count(self, champion: Decision, challenger: Decision) -> None:
        self._n += 1
        self._agreed += champion.tier == challenger.tier
        self._tiers["champion"][champion.tier] += 1
        self._tiers["challenger"][challenger.tier] += 1
        # By the champion's estimates alone: two models' opinions of themselves would not be comparable.
        for tier, p in champion.propensity.items():
            shift = challenger.propensity.get(tier, 0.0) - p
            self._cost_usd += shift * champion.expected_cost_usd.get(tier, 0.0)
            self._adequacy += shift * champion.adequacy.get(tier, 0.0)
