"""Allowances as a few floats: what refills with time, and what is saved up by requests.

Each also keeps what was taken since other replicas were last told. Those are two more sums; who tells them, and when,
is `shared_limits`' business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from router_ml_serving.tenants import SHARE_WINDOW

__all__ = ["Bucket", "Report", "Share"]


class Report(NamedTuple):
    """What one counter tells the others, in the words of the script that adds it up.

    Of a bucket in seconds of refill: `own` is missing here as far as this replica knows, `plus` of it since the last
    report. Of a share in calls: `own` is saved up here; since the last report `plus` was earned and `minus` spent, and
    no more than `most` can be saved.
    """

    kind: Literal["bucket", "share"]
    own: float
    plus: float
    minus: float = 0.0
    most: float = 0.0


@dataclass(slots=True)
class Bucket:
    """An allowance that refills steadily and never holds more than a minute's worth; it may be overdrawn.

    Kept as the one moment at which it will be full again (the generic cell rate algorithm).
    """

    per_minute: float
    full_at_s: float = -math.inf
    untold_s: float = 0.0

    def left(self, now_s: float) -> float:
        """Return what is there, negative when overdrawn."""
        return self.per_minute * (1.0 - max(0.0, self.full_at_s - now_s) / 60.0)

    def take(self, amount: float, now_s: float) -> None:
        """Take something out; a negative amount puts it back."""
        refill_s = amount * 60.0 / self.per_minute
        self.full_at_s = max(self.full_at_s, now_s) + refill_s
        self.untold_s += refill_s

    def wait_s(self, amount: float, now_s: float) -> float:
        """Return after how many seconds so much will be there."""
        return max(0.0, (amount - self.left(now_s)) * 60.0 / self.per_minute)

    def is_idle(self, now_s: float) -> bool:
        """Return whether there is nothing to tell, nor to hear: nothing was taken, and it is full."""
        return not self.untold_s and self.full_at_s <= now_s

    def report(self, now_s: float) -> Report:
        """Return what to tell the others; it counts as told."""
        told, self.untold_s = self.untold_s, 0.0
        return Report("bucket", max(0.0, self.full_at_s - now_s), told)

    def hear(self, missing_s: float, now_s: float) -> None:
        """Take over what all replicas together have taken.

        Args:
            missing_s: In how many seconds it would be full; negative when it has been for a while.
            now_s: Now; what was taken here since the report comes on top.
        """
        # What was given back to a full bucket is no credit for what comes.
        self.full_at_s = now_s + max(0.0, missing_s) + self.untold_s


@dataclass(slots=True)
class Share:
    """What a tenant has saved up for the dearest tier: each request earns `share` of a call, each call costs one.

    However requests arrive, of n of them at most `share` x n + 1 have had such a call.
    """

    share: float
    saved: float = 1.0
    untold_requests: int = 0
    untold_calls: int = 0

    @property
    def most(self) -> float:
        """How many calls can be saved up."""
        return max(1.0, self.share * SHARE_WINDOW)

    def count(self, *, large: bool) -> None:
        """Count one request."""
        self.saved = min(self.saved + self.share, max(1.0, self.share * SHARE_WINDOW)) - large
        self.untold_requests += 1
        self.untold_calls += large

    def allows(self) -> bool:
        """Say whether the next request may have a call of the dearest tier; what it earns itself counts."""
        # Sums of shares such as 0.1 end just below 1.
        return self.saved + self.share >= 1.0 - 1e-9

    def is_idle(self, _now_s: float) -> bool:
        """Return whether there is nothing to tell."""
        return not self.untold_requests

    def report(self, _now_s: float) -> Report:
        """Return what to tell the others; it counts as told."""
        earned, spent = self.untold_requests * self.share, float(self.untold_calls)
        self.untold_requests = self.untold_calls = 0
        return Report("share", self.saved, earned, spent, self.most)

    def hear(self, saved: float, _now_s: float) -> None:
        """Take over what all replicas together have saved; what was counted here since the report comes on top."""
        self.saved = min(saved + self.untold_requests * self.share, self.most) - self.untold_calls
