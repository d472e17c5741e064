"""`[tenants.NAME]` of router.toml: tiers, rates, the share of the dearest tier, and in whose name it may judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, RootModel

from router_ml.config import Config, parse_section
from router_ml.errors import ConfigError
from router_ml.ladder import Ladder
from router_ml.registry import did_you_mean

__all__ = [
    "EVERYBODY_ELSE",
    "SHARE_WINDOW",
    "FeedbackSource",
    "TenantRules",
    "TenantSettings",
    "Tenants",
    "TenantsSection",
    "tenants_of",
]

# The name under [tenants] whose rules hold for everybody that has none of its own.
EVERYBODY_ELSE = "default"
# Requests over which a tenant may save up calls of the dearest tier.
SHARE_WINDOW = 200

# Verifier, rule and retry are the router's own words: nobody else speaks for it.
FeedbackSource: TypeAlias = Literal["user", "judge", "human", "check"]

PerMinute = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
# Less than one in a window would mean: never. That is what `tiers` is for.
Share = Annotated[float, Field(ge=1 / SHARE_WINDOW, le=1.0)]


class TenantSettings(BaseModel):
    """One tenant as a person writes it; None sets no limit.

    `tiers` may answer. `requests_per_minute` and `tokens_per_minute` (as upstreams count them, prompts and answers of
    all attempts) refill steadily. `max_large_share` is the share of the tenant's requests that may cost a call of the
    dearest tier. `feedback_sources` are those in whose name it may judge: people's audits and checks weigh more in
    training than thumbs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tiers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    max_large_share: Share | None = None
    feedback_sources: Annotated[tuple[FeedbackSource, ...], Field(min_length=1)] | None = None


class TenantsSection(RootModel[dict[str, TenantSettings]]):
    """`[tenants]` as a whole."""


@dataclass(frozen=True, slots=True)
class TenantRules:
    """What one tenant may do; `source` is the key of router.toml that says so. None sets no limit."""

    source: str = f"tenants.{EVERYBODY_ELSE}"
    tiers: frozenset[str] | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_large_share: float | None = None
    feedback_sources: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Tenants:
    """The rules of every tenant: those with a section of their own, and everybody else."""

    named: Mapping[str, TenantRules]
    default: TenantRules

    def rules(self, tenant: str | None) -> TenantRules:
        """Return the rules that hold for a tenant; None is a caller without one."""
        return self.default if tenant is None else self.named.get(tenant, self.default)


def tenants_of(config: Config, ladder: Ladder) -> Tenants:
    """Return the checked `[tenants]` section.

    Args:
        config: The whole configuration.
        ladder: The tiers in service; names are checked against them.

    Raises:
        ConfigError: With one line per mistake.
    """
    raw = config.sections.get("tenants", {})
    section = parse_section(TenantsSection, raw, where=config.source, prefix="tenants.").root
    mistakes = [mistake for name, one in section.items() for mistake in _mistakes(f"tenants.{name}", one, ladder)]
    if mistakes:
        plural = "problem" if len(mistakes) == 1 else "problems"
        raise ConfigError(f"{config.source}: {len(mistakes)} {plural}\n" + "\n".join(f"  {line}" for line in mistakes))
    rules = {name: _rules(name, one) for name, one in section.items()}
    default = rules.pop(EVERYBODY_ELSE, TenantRules())
    return Tenants(rules, default)


def _rules(name: str, one: TenantSettings) -> TenantRules:
    return TenantRules(
        source=f"tenants.{name}",
        tiers=None if one.tiers is None else frozenset(one.tiers),
        requests_per_minute=one.requests_per_minute,
        tokens_per_minute=one.tokens_per_minute,
        max_large_share=one.max_large_share,
        feedback_sources=None if one.feedback_sources is None else frozenset(one.feedback_sources),
    )


def _mistakes(key: str, one: TenantSettings, ladder: Ladder) -> list[str]:
    known = list(ladder.names)
    mistakes = [
        f"{key}.tiers: no tier is called '{name}'{did_you_mean(name, known)}; tiers: {', '.join(known)}"
        for name in one.tiers or ()
        if name not in known
    ]
    if one.max_large_share is not None and one.tiers is not None and set(one.tiers) == {known[-1]}:
        mistakes.append(
            f"{key}.max_large_share: '{known[-1]}' is the only tier of this tenant, so nothing can answer the rest; "
            f"add a cheaper one to {key}.tiers"
        )
    return mistakes
