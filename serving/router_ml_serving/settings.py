"""`[serving]`, `[rollout]` and `[golden]` of router.toml: the service, how bundles are switched, the golden set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from router_ml.config import Config, parse_section

__all__ = [
    "GoldenSettings",
    "RolloutSettings",
    "ServingSettings",
    "golden_settings",
    "rollout_settings",
    "serving_settings",
]

Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class ServingSettings(BaseModel):
    """The service's own section; every key has a default that is safe on one machine.

    `connect_s`, `idle_s` (between two pieces of an answer) and `total_s` bound an upstream call, which is tried again
    up to `retries` times within `retry_s`. So many `breaker_failures` in a row open the circuit of a tier for
    `breaker_s` (0: never). An answer of more than `max_answer_bytes` is an error. With `upstream_hosts`, tiers must be
    served at one of them.

    A stream whose tier is adequate with at least `stream_adequacy` passes straight through; others are held until
    judged, with a comment every `keepalive_s`. `reload_s` is how often the champion pointer is looked at.
    `api_key_env` and `admin_key_env` name the environment variables that hold the keys, `keys_file` holds the digests
    of tenants' keys; without a client key the service listens on this machine alone, unless `allow_anonymous`.
    `redis_env` names the environment variable with the URL of the Redis over which replicas share tenants' limits.
    `receive_s` is how long a request may take to arrive, `send_s` how long a client may read nothing of its answer.
    `docs` and `open_metrics` show /docs and /metrics to everybody on other interfaces than the loopback, too.

    `sessions` are remembered at most, until `session_ttl_s` of silence; a prompt cache is warm for `cache_idle_s`, and
    who asks again within `repeat_s` was not content. Of `memory_classes` of requests the tier they needed is
    remembered, fading with the time constant `memory_ttl_s`. 0 switches that part off.

    `background` is how many requests may have background calls at once. `traces` exports OpenTelemetry spans;
    `log_level` and `log_format` are those of the lines on standard error, one per request with `log_requests`.
    `seed` fixes exploration; None draws it anew at each start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    max_body_bytes: Annotated[int, Field(gt=0)] = 8 * 1024 * 1024
    connect_s: Seconds = 5.0
    idle_s: Seconds = 120.0
    total_s: Seconds = 600.0
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    retry_s: Seconds = 5.0
    breaker_failures: Annotated[int, Field(ge=0)] = 5
    breaker_s: Seconds = 10.0
    max_answer_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    upstream_hosts: tuple[str, ...] = ()
    stream_adequacy: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    keepalive_s: Seconds = 2.0
    reload_s: Seconds = 1.0
    drain_s: Seconds = 30.0
    api_key_env: str | None = None
    keys_file: Path | None = None
    allow_anonymous: bool = False
    redis_env: str | None = None
    receive_s: Seconds = 60.0
    send_s: Seconds = 30.0
    docs: bool = False
    open_metrics: bool = False
    admin_key_env: str = "ROUTER_ML_ADMIN_KEY"
    queue_size: Annotated[int, Field(gt=0)] = 10_000
    batch_size: Annotated[int, Field(gt=0)] = 200
    flush_s: Seconds = 0.2
    spill: Path = Path("router_ml.spill.jsonl")
    sessions: Annotated[int, Field(ge=0)] = 10_000
    session_ttl_s: Seconds = 1800.0
    cache_idle_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 300.0
    repeat_s: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 180.0
    memory_classes: Annotated[int, Field(ge=0)] = 4096
    memory_ttl_s: Seconds = 3600.0
    background: Annotated[int, Field(ge=1)] = 64
    traces: bool = False
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    log_requests: bool = False
    seed: int | None = None


class RolloutSettings(BaseModel):
    """`[rollout]`: how a challenger is tried beside the champion, and when a switch is undone.

    `canary_share` of the sessions, of `canary_tenants` only if there are any, are answered by the challenger; never all
    of them, since the rest is what it is compared with. `shadow` has it decide on the champion's requests as well, for
    the record. `alpha` is the chance that a challenger which is no worse than allowed is ever withdrawn; `max_…_rise`
    is how much higher its rate may be: of escalations, of upstream errors, of negative feedback, and of answers slower
    than 95 % of the champion's. No alarm before `min_requests`; `automatic` false only reports alarms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    canary_share: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    canary_tenants: frozenset[str] = frozenset()
    shadow: bool = True
    automatic: bool = True
    alpha: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01
    max_escalation_rise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.03
    max_error_rise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.01
    max_negative_rise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.02
    max_latency_rise: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    min_requests: Annotated[int, Field(ge=1)] = 30


class GoldenSettings(BaseModel):
    """`[golden]`: the requests that `router-ml golden` asks every tier again and again.

    `file` is the golden set, `budget_usd` what one run may cost, `judge` the tier that judges what rules cannot,
    `concurrency` how many items are asked at once, `max_tokens` the longest answer where an item does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Path = Path("golden.jsonl")
    budget_usd: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    judge: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=256)] = 4
    max_tokens: Annotated[int, Field(ge=1)] = 1024


def golden_settings(config: Config) -> GoldenSettings:
    """Return the checked `[golden]` section of a configuration.

    Raises:
        ConfigError: With one line per mistake.
    """
    return parse_section(GoldenSettings, config.sections["golden"], where=config.source, prefix="golden.")


def rollout_settings(config: Config) -> RolloutSettings:
    """Return the checked `[rollout]` section of a configuration.

    Raises:
        ConfigError: With one line per mistake.
    """
    return parse_section(RolloutSettings, config.sections["rollout"], where=config.source, prefix="rollout.")


def serving_settings(config: Config) -> ServingSettings:
    """Return the checked `[serving]` section of a configuration.

    Raises:
        ConfigError: With one line per mistake.
    """
    return parse_section(ServingSettings, config.sections["serving"], where=config.source, prefix="serving.")
