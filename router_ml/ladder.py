"""Tiers, the ladder they form in order of price, the built-in price catalogue, and the cost of an attempt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from router_ml.errors import ConfigError, UnknownName
from router_ml.registry import did_you_mean

__all__ = ["CATALOGUE", "Capability", "Ladder", "Price", "Tier", "price_of"]

Capability: TypeAlias = Literal["tools", "vision", "json", "audio"]
Usd = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

# A typical chat call; only used to order tiers whose input and output prices disagree.
_TYPICAL_INPUT_TOKENS = 1000
_TYPICAL_OUTPUT_TOKENS = 300


class Price(BaseModel):
    """USD per million tokens; `cached_input_usd_per_mtok` None means that cached input costs as much as fresh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd_per_mtok: Usd
    output_usd_per_mtok: Usd
    cached_input_usd_per_mtok: Usd | None = None


def _usd(input_: float, output: float, cached: float | None = None) -> Price:
    return Price(input_usd_per_mtok=input_, output_usd_per_mtok=output, cached_input_usd_per_mtok=cached)


# List prices in USD per million tokens. Override one, or add a model, under [prices] in router.toml.
CATALOGUE: Mapping[str, Price] = {
    "gpt-4o": _usd(2.50, 10.00, 1.25),
    "gpt-4o-mini": _usd(0.15, 0.60, 0.075),
    "claude-3-5-sonnet": _usd(3.00, 15.00, 0.30),
    "claude-3-5-haiku": _usd(0.80, 4.00, 0.08),
    # Self-hosted: what the machines cost at a usual load, not a list price.
    "llama-3.1-70b": _usd(0.50, 0.50),
    "mistral-large": _usd(2.00, 6.00),
}


def price_of(model: str, overrides: Mapping[str, Price] | None = None) -> Price | None:
    """Return the price of a model, dated names included (`gpt-4o-2024-08-06` is `gpt-4o`); None when unknown.

    Overrides win over the catalogue; the longest matching name wins within each.
    """
    for prices in (overrides or {}, CATALOGUE):
        names = [name for name in prices if model == name or model.startswith(f"{name}-20")]
        if names:
            return prices[max(names, key=len)]
    return None


class Tier(Price):
    """One rung of the ladder: a name, an upstream model, its prices and what it can take."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str = Field(min_length=1)
    base_url: str | None = None
    api_key_env: str | None = None
    context_window: Annotated[int, Field(gt=0)] = 128_000
    capabilities: frozenset[Capability] = frozenset({"tools", "vision", "json"})
    latency_ms: Annotated[float, Field(ge=0.0)] = 0.0

    def cost_usd(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """Return what a call costs in USD; `cached_tokens` is the part of `input_tokens` that came from the cache."""
        cached = min(cached_tokens, input_tokens)
        cached_price = (
            self.input_usd_per_mtok if self.cached_input_usd_per_mtok is None else self.cached_input_usd_per_mtok
        )
        return (
            (input_tokens - cached) * self.input_usd_per_mtok
            + cached * cached_price
            + output_tokens * self.output_usd_per_mtok
        ) / 1e6

    @property
    def typical_cost_usd(self) -> float:
        """The cost of a typical chat call: what the ladder is ordered by."""
        return self.cost_usd(_TYPICAL_INPUT_TOKENS, _TYPICAL_OUTPUT_TOKENS)


@dataclass(frozen=True)
class Ladder:
    """The tiers in order of price, cheapest first; two to ten of them.

    What every decision needs of them is read from the tiers once and kept, which is why it has no slots.
    """

    tiers: tuple[Tier, ...]

    @classmethod
    def of(cls, tiers: Sequence[Tier]) -> Ladder:
        """Order tiers by the cost of a typical call.

        Raises:
            ConfigError: With fewer than two or more than ten tiers, or with a name used twice.
        """
        names = [tier.name for tier in tiers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"tiers: the name '{twice[0]}' is used {names.count(twice[0])} times; names must differ")
        if not 2 <= len(tiers) <= 10:
            raise ConfigError(f"tiers: a ladder needs 2 to 10 tiers, got {len(tiers)} ({', '.join(names) or 'none'})")
        return cls(tuple(sorted(tiers, key=lambda tier: (tier.typical_cost_usd, tier.name))))

    def __iter__(self) -> Iterator[Tier]:
        return iter(self.tiers)

    def __len__(self) -> int:
        return len(self.tiers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tier names, cheapest first."""
        return tuple(tier.name for tier in self.tiers)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The position of every tier by name, 0 = cheapest."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def everyone(self) -> tuple[bool, ...]:
        """True for every tier."""
        return (True,) * len(self.tiers)

    @cached_property
    def windows(self) -> tuple[int, ...]:
        """The context window of every tier in tokens."""
        return tuple(tier.context_window for tier in self.tiers)

    @cached_property
    def smallest_window(self) -> int:
        """The smallest context window: what fits there fits everywhere."""
        return min(self.windows)

    @cached_property
    def latencies_ms(self) -> tuple[float, ...]:
        """How long every tier usually takes for an answer, in milliseconds."""
        return tuple(tier.latency_ms for tier in self.tiers)

    @cached_property
    def prices(self) -> tuple[tuple[float, float], ...]:
        """The prices of input and output of every tier, USD per million tokens."""
        return tuple((tier.input_usd_per_mtok, tier.output_usd_per_mtok) for tier in self.tiers)

    def index(self, name: str) -> int:
        """Return the position of a tier, 0 = cheapest.

        Raises:
            UnknownName: When the ladder has no such tier.
        """
        place = self.places.get(name)
        if place is not None:
            return place
        known = ", ".join(self.names)
        raise UnknownName(f"no tier is called '{name}'{did_you_mean(name, list(self.names))}; the ladder has {known}")

    def tier(self, name: str) -> Tier:
        """Return the tier of that name; raises `UnknownName` like `index`."""
        return self.tiers[self.index(name)]

    def by_model(self, model: str) -> Tier | None:
        """Return the cheapest tier whose upstream model has that name, or None."""
        return next((tier for tier in self.tiers if tier.model == model), None)

    def costs_usd(
        self, input_tokens: float | NDArray[np.float64], output_tokens: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the expected cost of one call per tier, of one request or of n.

        Args:
            input_tokens: Expected prompt length in tokens, a number or shape (n, 1).
            output_tokens: Expected answer length per tier in tokens, shape (K,) or (n, K).

        Returns:
            USD per tier, float64, in the shape of `output_tokens`.
        """
        prices_in, prices_out = np.array(self.prices).T
        costs: NDArray[np.float64] = (input_tokens * prices_in + output_tokens * prices_out) / 1e6
        return costs

    def costs_of(self, input_tokens: float, output_tokens: Sequence[float]) -> list[float]:
        """Return what `costs_usd` does for one request, number by number: faster, as a ladder is short."""
        return [
            (input_tokens * in_ + tokens * out) / 1e6
            for (in_, out), tokens in zip(self.prices, output_tokens, strict=True)
        ]

    def saved_usd(self, name: str, input_tokens: float, cached_tokens: float) -> float:
        """Return what a call of a tier costs less because so many tokens of its prompt are in the upstream's cache.

        Args:
            name: The tier; one that the ladder does not have saves nothing.
            input_tokens: Length of the prompt.
            cached_tokens: How much of it is in the cache.
        """
        if name not in self.places:
            return 0.0
        tier = self.tiers[self.places[name]]
        cached_price = tier.cached_input_usd_per_mtok
        if cached_price is None:
            return 0.0
        tokens = max(min(cached_tokens, input_tokens), 0.0)
        return tokens * max(tier.input_usd_per_mtok - cached_price, 0.0) / 1e6
