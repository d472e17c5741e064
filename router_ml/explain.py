"""Why a request was decided as it was: what in it matters, what every plan is worth, and which quality changes it.

Works for any learner: a feature's weight is what the model's own graph says without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from router_ml.bundle import Bundle
from router_ml.constraints import NOTHING_SPECIAL, Circumstances, Context, eligible, needs_of
from router_ml.features import DENSE_NAMES, N_TEXT_BUCKETS, FeatureBatch, Features, featurize
from router_ml.features.scan import scan
from router_ml.features.view import RequestView, view_of
from router_ml.plans import plan_values
from router_ml.router import Router
from router_ml.schema import Decision, Plan, Request

__all__ = ["Contribution", "Explanation", "PlanWorth", "QualityRange", "explain"]

Kind: TypeAlias = Literal["all", "word", "metadata", "number"]
Doubles: TypeAlias = NDArray[np.float64]
# Less than this is not worth a line.
_LEAST = 5e-4
# Variants that are scored at once: a long prompt has thousands of words, and each variant is as wide as all of them.
_CHUNK = 128
# What a model does beyond this many words and pairs is left to the row for all of them.
_MAX_WORDS = 600


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one feature does: `change` is by how much it moves P(adequate) of every tier, all else left as it is.

    `kind` says whether it is a word or pair of words, a piece of metadata, a number, or `all` of the first two.
    """

    name: str
    kind: Kind
    change: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PlanWorth:
    """A plan and its utility; `allowed` says whether every tier of it may answer."""

    plan: Plan
    utility: float
    allowed: bool


@dataclass(frozen=True, slots=True)
class QualityRange:
    """Qualities from above `low` to `high` for which the same plan is made."""

    low: float
    high: float
    plan: Plan


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything behind one decision but the decision itself.

    `contributions` are those that matter most, by falling weight; `plans` all plans by falling utility; `qualities`
    what would be planned at which quality, from the highest down. `frontier_point` is the quality of the tuned point in
    use (None: none is high enough, and the best tier answers at any price), `saving` the share of cost saved there.
    `unusual` are the numbers outside of the range of the training data.
    """

    contributions: tuple[Contribution, ...]
    plans: tuple[PlanWorth, ...]
    qualities: tuple[QualityRange, ...]
    frontier_point: float | None
    saving: float | None
    exploration: float
    verifier: bool
    in_distribution: bool
    unusual: tuple[str, ...]


def explain(
    router: Router,
    request: Request,
    decision: Decision,
    *,
    case: Context | None = None,
    circumstances: Circumstances = NOTHING_SPECIAL,
    top: int = 10,
) -> Explanation:
    """Explain a decision of this router.

    Args:
        router: The router that decided.
        request: What was decided.
        decision: The decision, made without or with exploration.
        case: What the request's use case allows; None: anything.
        circumstances: What held when it was decided.
        top: How many features are listed at most.
    """
    view = view_of(request)
    features = featurize(request, view=view)
    context = replace(case or Context(), now=circumstances)
    mask, _ = eligible(needs_of(request, features), router.ladder, context)
    planned = _planned(router, request, decision.quality, circumstances)
    points = [point for point in router.bundle.policy.frontier if point.quality >= decision.quality]
    return Explanation(
        contributions=_contributions(router, request, view, features, top),
        plans=_plans(router, decision, mask),
        qualities=_qualities(router, request, circumstances),
        frontier_point=points[-1].quality if points else None,
        saving=points[-1].saving if points else None,
        exploration=1.0 - decision.propensity[planned.tier],
        verifier=router.bundle.verifier is not None,
        in_distribution=router.in_distribution(features),
        unusual=_unusual(router.bundle, features),
    )


@dataclass(slots=True)
class _Variants:
    """One request, changed in one way in every row."""

    features: Features
    named: list[tuple[str, Kind]] = field(default_factory=list)
    dense: list[NDArray[np.float32]] = field(default_factory=list)
    counts: list[NDArray[np.float32]] = field(default_factory=list)

    def without(self, places: Sequence[int], name: str, kind: Kind) -> None:
        counts = self.features.counts.copy()
        counts[np.asarray(places)] = 0.0
        self._add(name, kind, self.features.dense, counts)

    def with_number(self, column: int, value: float) -> None:
        dense = self.features.dense.copy()
        dense[column] = value
        self._add(DENSE_NAMES[column], "number", dense, self.features.counts)

    def _add(self, name: str, kind: Kind, dense: NDArray[np.float32], counts: NDArray[np.float32]) -> None:
        self.named.append((name, kind))
        self.dense.append(dense)
        self.counts.append(counts)

    def changes(self, bundle: Bundle) -> Doubles:
        """Return P(adequate) of the request less that of every variant, (n, K) in the order of the bundle's ladder."""
        whole = bundle.score(self.features).adequacy
        changes = np.empty((len(self.named), len(whole)))
        for start in range(0, len(self.named), _CHUNK):
            rows = slice(start, start + _CHUNK)
            dense, counts = np.stack(self.dense[rows]), np.stack(self.counts[rows])
            ids = np.broadcast_to(self.features.ids, counts.shape).copy()
            tokens = np.full(len(ids), self.features.input_tokens)
            changes[rows] = whole - bundle.score_many(FeatureBatch(dense, ids, counts, tokens))[0]
        return changes


def _contributions(
    router: Router, request: Request, view: RequestView, features: Features, top: int
) -> tuple[Contribution, ...]:
    variants = _Variants(features)
    _vary_ids(variants, request, view)
    for column, value in enumerate(_neutral(router.bundle)):
        if features.dense[column] != np.float32(value):
            variants.with_number(column, value)
    columns = {name: router.bundle.ladder.index(name) for name in router.ladder.names}
    found = [
        Contribution(name, kind, {tier: float(row[column]) for tier, column in columns.items()})
        for (name, kind), row in zip(variants.named, variants.changes(router.bundle), strict=True)
        if np.isfinite(row).all() and np.abs(row).max() >= _LEAST
    ]
    found.sort(key=lambda one: -max(map(abs, one.change.values())))
    return tuple(found[:top])


def _vary_ids(variants: _Variants, request: Request, view: RequestView) -> None:
    ids = variants.features.ids
    words = np.flatnonzero(ids < N_TEXT_BUCKETS).tolist()
    metadata = np.flatnonzero(ids >= N_TEXT_BUCKETS).tolist()
    for places, name in ((words, "all words and pairs together"), (metadata, "all metadata together")):
        if len(places) > 1:
            variants.without(places, name, "all")
    texts = _texts(view)
    for place in words[:_MAX_WORDS]:
        variants.without([place], texts.get(int(ids[place]), "words of one bucket"), "word")
    for name, gone in _metadata(request, variants.features, metadata):
        variants.without(gone, name, "metadata")


def _texts(view: RequestView) -> dict[int, str]:
    """Return what the text buckets of a request stand for: words in quotes, and pairs of words."""
    bucket_to_word: dict[int, str] = {}
    for word in dict.fromkeys(_spaced(view.asked).lower().split()):
        bucket_to_word.setdefault(int(scan(word).buckets[0]), word)
    n = len(view.scan.words)
    buckets = view.scan.buckets.tolist()
    sequence = [bucket_to_word.get(bucket) for bucket in buckets[:n]]
    texts = {bucket: f'"{word}"' for bucket, word in bucket_to_word.items()}
    for bucket, first, second in zip(buckets[n:], sequence, sequence[1:], strict=False):
        if first is not None and second is not None:
            texts.setdefault(bucket, f'"{first} {second}"')
    return texts


def _spaced(text: str) -> str:
    """Return a text with spaces wherever one word ends and another begins."""
    kinds = {char: len(scan(char * 2).words) for char in set(text)}
    # Written twice, a letter is one word, a character of a script without spaces is two, and anything else none.
    shown = {char: (" ", char, f" {char} ")[kind] for char, kind in kinds.items()}
    return "".join(shown[char] for char in text)


def _metadata(request: Request, features: Features, places: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Return the facts about a request, and where the ids stand that would not be there without each."""
    without: dict[str, Request] = {}
    for name in ("tenant", "feature", "use_case"):
        value = getattr(request, name)
        if value:
            nobody: dict[str, Any] = {name: None}
            without[f"{name}={value}"] = replace(request, **nobody)
    if request.tools:
        without["tools"] = replace(request, tools=None)
    users = [message for message in request.messages if message.get("role") not in ("system", "developer")]
    if len(users) < len(request.messages):
        without["system prompt"] = replace(request, messages=users)
    found: list[tuple[str, list[int]]] = []
    rest = set(places)
    for name, changed in without.items():
        left = set(featurize(changed).ids.tolist())
        gone = [place for place in places if int(features.ids[place]) not in left]
        rest.difference_update(gone)
        if gone:
            found.append((name, gone))
    if rest:
        found.append(("turn of the conversation", sorted(rest)))
    return found


def _neutral(bundle: Bundle) -> list[float]:
    """Return what a number is compared with: 0 where that is usual, else the middle of the usual range."""
    bounds = bundle.policy.bounds
    if bounds is None:
        return [0.0] * len(DENSE_NAMES)
    return [0.0 if low <= 0.0 else (low + high) / 2.0 for low, high in zip(bounds.low, bounds.high, strict=True)]


def _unusual(bundle: Bundle, features: Features) -> tuple[str, ...]:
    bounds = bundle.policy.bounds
    if bounds is None:
        return ()
    low, high = np.array(bounds.low, np.float32), np.array(bounds.high, np.float32)
    outside = (features.dense < low) | (features.dense > high)
    return tuple(DENSE_NAMES[column] for column in np.flatnonzero(outside))


def _plans(router: Router, decision: Decision, mask: Sequence[bool]) -> tuple[PlanWorth, ...]:
    names = router.ladder.names
    policy, k = router.bundle.policy, len(names)
    judged = policy.operating(decision.quality, attempts=router.knobs.max_attempts)[1]
    spread = np.zeros((k, k))
    if judged and policy.plans is not None:
        order = [router.bundle.ladder.index(name) for name in names]
        spread = np.array(policy.plans.spread)[np.ix_(order, order)]
    price = decision.usd_price if decision.usd_price is not None else decision.threshold
    adequacy = np.array([decision.adequacy[name] for name in names])
    priced = price * np.array([decision.expected_cost_usd[name] for name in names])
    values = plan_values(adequacy, priced, spread)
    found = [
        PlanWorth(Plan(names[s], None if s == t else names[t]), float(values[s, t]), mask[s] and mask[t])
        for s in range(k)
        for t in range(s, k)
        if s == t or (judged and router.knobs.max_attempts > 1)
    ]
    return tuple(sorted(found, key=lambda one: -one.utility))


def _qualities(router: Router, request: Request, circumstances: Circumstances) -> tuple[QualityRange, ...]:
    points = sorted(point.quality for point in router.bundle.policy.frontier if 0.0 < point.quality < 1.0)
    ranges: list[QualityRange] = []
    low = 0.0
    for high in [*points, 1.0]:
        made = _planned(router, request, high, circumstances)
        plan = made.plan if made.judged else Plan(made.tier)
        if ranges and ranges[-1].plan == plan:
            ranges[-1] = replace(ranges[-1], high=high)
        else:
            ranges.append(QualityRange(low, high, plan))
        low = high
    return tuple(reversed(ranges))


def _planned(router: Router, request: Request, quality: float, circumstances: Circumstances) -> Decision:
    rng = cast(np.random.Generator, _NeverExplores())
    return router.route(request, decision_id="", rng=rng, quality=quality, circumstances=circumstances)


class _NeverExplores:
    def random(self) -> float:
        return -1.0  # below every probability to stay with the plan, 0 included
