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
    "PolicySpec",
    "PriceUnit",
    "TrainedOn",
]

FORMAT: Literal[1] = 1

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
PriceUnit = Literal["usd", "relative"]
# The version is also the name of the bundle's folder.
Version = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FrontierPoint(_Record):
    """One point of the tuned cost-quality curve.

    `quality` is the share of the best tier's quality that is kept, `shadow_price` the quality per unit of cost that
    keeps it, `saving` the share of the best tier's cost that is saved there.
    """

    quality: NotNegative
    shadow_price: NotNegative
    saving: Finite


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


class PolicySpec(_Record):
    """`policy.json`: the ladder a bundle was trained for, the tuned frontier, and the bounds of its features.

    With `price_unit` "usd" a shadow price is quality per USD: right where the traffic is the user's own. With
    "relative" it is quality per cost of the dearest tier's answer to the same request: for a bundle that knows nothing
    of the traffic's prices.
    """

    format: Literal[1] = FORMAT
    tiers: tuple[Tier, ...]
    best_tier: str
    price_unit: PriceUnit = "usd"
    frontier: tuple[FrontierPoint, ...] = ()
    bounds: FeatureBounds | None = None

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

    def shadow_price(self, quality: float) -> float:
        """Return the quality per USD at which `quality` of the best tier's quality is kept.

        The entry with the smallest quality that is still enough decides. When none is, the price is 0: the tier
        with the highest adequacy then answers whatever it costs.

        Args:
            quality: Share of the best tier's quality to keep, in (0, 1].
        """
        enough = [point for point in self.frontier if point.quality >= quality]
        return enough[-1].shadow_price if enough else 0.0


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
