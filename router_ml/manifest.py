"""What a bundle says about itself: `policy.json` (how to decide) and `manifest.json` (what it was made from)."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_serializer, model_validator

from router_ml.errors import ConfigError
from router_ml.ladder import Ladder, Tier

__all__ = [
    "FORMAT",
    "FeatureBounds",
    "FrontierPoint",
    "Manifest",
    "ManifestDraft",
    "Metric",
    "PlanSpec",
    "PolicySpec",
    "PriceUnit",
    "TrainedOn",
]

FORMAT: Literal[1] = 1

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
PriceUnit = Literal["usd", "relative", "typical"]
# The version is also the name of the bundle's folder.
Version = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrontierPoint(_Record):
    """One point of the tuned cost-quality curve.

    `quality` is the share of the best tier's quality that is kept, `shadow_price` the quality per unit of cost that
    keeps it, `saving` the share of the best tier's cost that is saved there. `judged` says that answers are judged by
    the verifier and plans of two attempts are among the choices; `alone_price` is then the shadow price for requests
    that allow only one attempt.
    """

    quality: NotNegative
    shadow_price: NotNegative
    saving: Finite
    judged: bool = False
    alone_price: NotNegative | None = None


class FeatureBounds(_Record):
    """The usual range of every dense feature, shape (D,) each; more than `max_outside` strays: out of distribution."""

    low: tuple[Finite, ...]
    high: tuple[Finite, ...]
    max_outside: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Self:
        if len(self.low) != len(self.high):
            message = f"bounds: low has {len(self.low)} values and high has {len(self.high)}, expected as many"
            raise ValueError(message)
        wrong = [i for i, (low, high) in enumerate(zip(self.low, self.high, strict=True)) if low > high]
        if wrong:
            raise ValueError(f"bounds: low is above high for dense feature {wrong[0]}")
        return self


class PlanSpec(_Record):
    """What plans of two attempts are valued with: how far the answers of tier s move the comparison of s and t.

    `spread` is (K, K) in ladder order, see `router_ml.plans.plan_values`; 0 where the verifier tells nothing.
    `elasticity`, `shift` and `curvature`, (K, K) too, say what the cost of an answer of s tells of the cost of t, see
    `router_ml.plans.cost_factor`; None where that was not measured.
    """

    spread: tuple[tuple[NotNegative, ...], ...]
    elasticity: tuple[tuple[Finite, ...], ...] | None = None
    shift: tuple[tuple[Finite, ...], ...] | None = None
    curvature: tuple[tuple[Finite, ...], ...] | None = None

    @property
    def tables(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """All tables there are, (K, K) each."""
        return tuple(one for one in (self.spread, self.elasticity, self.shift, self.curvature) if one is not None)


class PolicySpec(_Record):
    """`policy.json`: the ladder a bundle was trained for, the tuned frontier, and the bounds of its features.

    With `price_unit` "usd" a shadow price is quality per USD: right where the traffic is the user's own. With
    "relative" it is quality per cost of the dearest tier's answer to the same request. With "typical" it is quality per
    USD at these tiers' prices, and elsewhere as much quality per cost of a typical request, see `price_scale`: for a
    bundle that knows nothing of the traffic's prices.
    """

    format: Literal[1] = FORMAT
    tiers: tuple[Tier, ...]
    best_tier: str
    price_unit: PriceUnit = "usd"
    frontier: tuple[FrontierPoint, ...] = ()
    bounds: FeatureBounds | None = None
    plans: PlanSpec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            ladder = Ladder.of(self.tiers)
        except ConfigError as error:
            raise ValueError(str(error)) from error
        if ladder.tiers != self.tiers:
            message = f"tiers: expected in order of price ({', '.join(ladder.names)}), got {', '.join(self._names)}"
            raise ValueError(message)
        if self.best_tier not in ladder.names:
            raise ValueError(f"best_tier: no tier is called '{self.best_tier}'; tiers: {', '.join(ladder.names)}")
        qualities = [point.quality for point in self.frontier]
        if any(later >= earlier for earlier, later in itertools.pairwise(qualities)):
            raise ValueError("frontier: expected points by falling quality, each lower than the one before")
        for table in () if self.plans is None else self.plans.tables:
            if {len(self.tiers)} != {len(table), *map(len, table)}:
                raise ValueError(f"plans: expected a number for every pair of the {len(self.tiers)} tiers")
        if self.plans is None and any(point.judged for point in self.frontier):
            raise ValueError("frontier: a point is judged, but there are no plans to value it with")
        return self

    @field_serializer("tiers", when_used="json")
    def _stable_tiers(self, tiers: tuple[Tier, ...]) -> list[dict[str, Any]]:
        # Sets have no order of their own; sorted, the same policy is always the same bytes.
        return [{**tier.model_dump(mode="json"), "capabilities": sorted(tier.capabilities)} for tier in tiers]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(tier.name for tier in self.tiers)

    @property
    def ladder(self) -> Ladder:
        """The tiers as a ladder, cheapest first."""
        return Ladder(self.tiers)

    def price_scale(self, ladder: Ladder) -> float:
        """Return by what a USD is to be multiplied at a ladder's prices before a shadow price is applied to it.

        With "typical" a shadow price weighs the dearest tier's answer to a typical request the same at any prices.

        Args:
            ladder: The prices that requests are answered at.
        """
        own, theirs = (one.tiers[-1].typical_cost_usd for one in (self.ladder, ladder))
        return own / theirs if self.price_unit == "typical" and own > 0 and theirs > 0 else 1.0

    def shadow_price(self, quality: float) -> float:
        """Return the quality per USD at which `quality` of the best tier's quality is kept.

        The entry with the smallest quality that is still enough decides. When none is, the price is 0: the tier
        with the highest adequacy then answers whatever it costs. Plans may be among the choices: see `operating`.

        Args:
            quality: Share of the best tier's quality to keep, in (0, 1].
        """
        return self.operating(quality)[0]

    def operating(self, quality: float, *, attempts: int = 2) -> tuple[float, bool]:
        """Return the shadow price that keeps `quality`, and whether answers are judged and plans considered there.

        Args:
            quality: Share of the best tier's quality to keep, in (0, 1].
            attempts: Attempts allowed, the first one included; plans need two.
        """
        enough = [point for point in self.frontier if point.quality >= quality]
        if not enough:
            return 0.0, False
        point = enough[-1]
        if point.judged and attempts < 2:
            return point.alone_price or 0.0, False
        return point.shadow_price, point.judged


class Metric(_Record):
    """A measured value with its 95 % interval, where one was computed."""

    value: Finite
    low: Finite | None = None
    high: Finite | None = None


class TrainedOn(_Record):
    """The data a bundle was trained on: a digest to recognise it by, its size, its time range, and a sentence."""

    digest: str
    n_interactions: Annotated[int, Field(ge=0)]
    first_ts: datetime | None = None
    last_ts: datetime | None = None
    description: str


class ManifestDraft(_Record):
    """What the maker of a bundle knows; `write_bundle` adds what it measures and computes itself."""

    version: Version
    created: datetime
    git_commit: str | None = None
    trained_on: TrainedOn
    learner: str
    metrics: dict[str, Metric] = Field(default_factory=dict)
    certificate: dict[str, JsonValue] | None = None
    mlflow_run_id: str | None = None
    libraries: dict[str, str] = Field(default_factory=dict)
    simulated: bool = False


class Manifest(ManifestDraft):
    """`manifest.json`: the draft, and the format, feature schema, graph shapes and checksums of every other file."""

    format: Literal[1] = FORMAT
    feature_schema_hash: str
    inputs: dict[str, list[int | str | None]]
    outputs: dict[str, list[int | str | None]]
    files: dict[FileName, Sha256]
