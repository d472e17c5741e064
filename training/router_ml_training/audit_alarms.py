"""Alarms on streams of outcomes: has a tier changed since its router was trained, looked at as often as one likes.

"An upstream silently changed its model" shows in audited outcomes long before a log is large enough for a table. Each
stream of numbers in [0, 1] is bet against, in both directions, by a Shiryaev-Roberts e-detector: at every outcome a new
bettor starts with 1, and the sum of what all of them own is the evidence. Bettors win while the mean is lower (higher)
than what was known before; without a change, the sum cannot be expected to grow by more than 1 an outcome. The alarm is
at `limit`: while nothing changes, the first one is not expected before so many outcomes, whatever their distribution,
however they depend on the past, and however often one looks. The state is computed from the log again at each look; the
same log gives the same alarms.

Source: Shin, Ramdas and Rinaldo 2024, "E-detectors: a nonparametric framework for sequential change detection" (arXiv
2203.03532): e-SR procedures, their average run length, mixtures of stakes, and means of bounded variables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from router_ml.cli.output import table
from router_ml_training.outcome_streams import Stream, StreamKind
from router_ml_training.profile import StreamMean

__all__ = ["RUN_LENGTH_DAYS", "Alarm", "Direction", "alarms_text", "evidence", "listen", "tolerated"]

F64: TypeAlias = NDArray[np.float64]
Direction: TypeAlias = Literal["fall", "rise"]

# Without any change, one false alarm in so many days is the most that all streams together are expected to raise.
RUN_LENGTH_DAYS = 365.0
# How far a mean may move before it is anybody's business; a few points of a length are some 8 % of it.
_MARGIN: Mapping[StreamKind, float] = {
    "quality": 0.02,
    "answer_length": 0.02,
    "escalation": 0.03,
    "chosen_answer_length": 0.02,
    "golden": 0.02,
}
# Shares of the largest stake that cannot lose everything, played beside each other; a small one for small changes.
_FRACTIONS = np.array([0.05, 0.1, 0.25, 0.5, 0.95])
# How unlikely it is that the mean was outside of what is tolerated when it was measured, on either side.
_DOUBT = 0.01
_LEAST = 50
_LATELY = 100
_DAY_S = 86_400.0
_MOST = 1e200  # beyond every limit, and far from where floats end


@dataclass(frozen=True, slots=True)
class Alarm:
    """One stream in one direction: what its mean was, what it is lately, the evidence, and whether it rings.

    `evidence` is the largest sum so far, `limit` what it has to reach; `since` is the outcome at which it did. Lengths
    are in tokens.
    """

    kind: StreamKind
    tier: str
    direction: Direction
    reference: float
    current: float
    n: int
    evidence: float
    limit: float
    rings: bool
    since: datetime | None

    @property
    def text(self) -> str:
        """What was found, in one sentence."""
        form = "{:.0f} tokens" if "length" in self.kind else "{:.1%}"
        was, now = form.format(self.reference), form.format(self.current)
        when = "" if self.since is None else f" (heard {self.since:%Y-%m-%d %H:%M} UTC)"
        verb = "fell" if self.direction == "fall" else "rose"
        return f"{self.kind.replace('_', ' ')} of {self.tier} {verb} from {was}; lately {now}{when}"

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {**asdict(self), "since": None if self.since is None else self.since.isoformat(), "text": self.text}


def evidence(values: ArrayLike, bound: float, direction: Direction) -> F64:
    """Return the evidence of a change after each outcome, (n,): of a mean below (above) `bound`.

    While the mean of every outcome, given those before it, is at least (at most) `bound`, the evidence is expected to
    grow by at most 1 an outcome. So it reaches c within n outcomes with probability at most n / c, and is not expected
    to before c of them.

    Args:
        values: Outcomes in [0, 1], oldest first, (n,).
        bound: The mean that is tolerated, in (0, 1).
        direction: `fall`: evidence of a mean below it; `rise`: above it.
    """
    series = np.asarray(values, np.float64)
    gain, worst = (bound - series, 1.0 - bound) if direction == "fall" else (series - bound, bound)
    found = np.zeros(len(series))
    for stake in _FRACTIONS / max(worst, 1e-9):
        factors = (1.0 + stake * gain).tolist()
        found += list(accumulate(factors, _played, initial=0.0))[1:]
    return found / len(_FRACTIONS)


def _played(owned: float, factor: float) -> float:
    return min(factor * (owned + 1.0), _MOST)


def tolerated(reference: StreamMean, margin: float) -> tuple[float, float]:
    """Return the lowest and the highest mean that is no change.

    The measured mean has an error, and is held for as wide as that: Clopper and Pearson's interval, which for outcomes
    between 0 and 1 is the wider the fewer of them are in between. It is at least `margin` wide on either side.
    """
    n, good = reference.n, reference.n * reference.mean
    low = float(beta.ppf(_DOUBT / 2, good, n - good + 1)) if good > 0 else 0.0
    high = float(beta.ppf(1 - _DOUBT / 2, good + 1, n - good)) if good < n else 1.0
    return min(low, reference.mean - margin), max(high, reference.mean + margin)


def listen(streams: Sequence[Stream], references: Mapping[StreamKind, Mapping[str, StreamMean]]) -> tuple[Alarm, ...]:
    """Return the state of every alarm that has something to be compared with.

    All of them together are expected to raise at most one false alarm in `RUN_LENGTH_DAYS`.

    Args:
        streams: The outcomes, later than those the references were measured on, and lengths in their scales.
        references: What was known before, such as `Profile.streams`; means of fewer than 50 outcomes say too little.
    """
    heard = [(one, ref) for one in streams if (ref := _reference(one, references)) is not None]
    ways: tuple[Direction, ...] = ("fall", "rise")
    return tuple(_alarm(one, ref, way, len(ways) * len(heard)) for one, ref in heard for way in ways)


def alarms_text(alarms: Sequence[Alarm]) -> str:
    """Return alarms as a table, those that ring first."""
    ranked = sorted(alarms, key=lambda one: (not one.rings, -one.evidence / one.limit))
    rows = [
        (
            "rings" if one.rings else "",
            f"{one.kind.replace('_', ' ')} of {one.tier} {'falls' if one.direction == 'fall' else 'rises'}",
            f"{one.reference:.4g}",
            f"{one.current:.4g}",
            one.n,
            f"{one.evidence:.3g}",
            f"{one.limit:.3g}",
        )
        for one in ranked
    ]
    return table(("", "alarm", "before", "lately", "outcomes", "evidence", "rings at"), rows)


def _reference(stream: Stream, references: Mapping[StreamKind, Mapping[str, StreamMean]]) -> StreamMean | None:
    found = references.get(stream.kind, {}).get(stream.tier)
    return None if found is None or found.n < _LEAST or found.scale != stream.scale else found


def _alarm(stream: Stream, reference: StreamMean, direction: Direction, n_streams: int) -> Alarm:
    low, high = tolerated(reference, _MARGIN[stream.kind])
    bound = low if direction == "fall" else high
    limit = RUN_LENGTH_DAYS * _per_day(stream) * n_streams
    possible = bound > 0.0 if direction == "fall" else bound < 1.0
    found = evidence(stream.values, bound, direction) if possible else np.zeros(len(stream.values))
    crossed = np.flatnonzero(found >= limit)
    since = datetime.fromtimestamp(float(stream.ts[crossed[0]]), UTC) if len(crossed) else None
    return Alarm(
        stream.kind,
        stream.tier,
        direction,
        _shown(reference.mean, reference.scale),
        _shown(float(stream.values[-_LATELY:].mean()), reference.scale),
        len(stream.values),
        float(found.max()),
        limit,
        since is not None,
        since,
    )


def _per_day(stream: Stream) -> float:
    """Return how many outcomes there are a day; never less than one, however short the stream."""
    days = max(float(stream.ts[-1] - stream.ts[0]) / _DAY_S, 1.0)
    return max(len(stream.values) / days, 1.0)


def _shown(mean: float, scale: float | None) -> float:
    """Return a mean, a length in tokens: the length that alone would have this mean."""
    if scale is None:
        return mean
    return scale * mean / max(1.0 - mean, 1e-9)
