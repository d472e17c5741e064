"""`[serving]` of router.toml: where the service listens, its limits and its timeouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from router_ml.config import Config, parse_section

__all__ = ["ServingSettings", "serving_settings"]

Seconds = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class ServingSettings(BaseModel):
    """The service's own section; every key has a default that is safe on one machine.

    `connect_s`, `idle_s` (between two pieces of an answer) and `total_s` bound an upstream call. A stream whose tier is
    adequate with at least `stream_adequacy` passes straight through; others are held until judged, with a comment every
    `keepalive_s`. `reload_s` is how often the champion pointer is looked at. `api_key_env` and `admin_key_env` name the
    environment variables that hold the keys. `background` is how many requests may have background calls at once.
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
    stream_adequacy: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9
    keepalive_s: Seconds = 2.0
    reload_s: Seconds = 1.0
    drain_s: Seconds = 30.0
    api_key_env: str | None = None
    admin_key_env: str = "ROUTER_ML_ADMIN_KEY"
    queue_size: Annotated[int, Field(gt=0)] = 10_000
    batch_size: Annotated[int, Field(gt=0)] = 50
    flush_s: Seconds = 0.2
    spill: Path = Path("router_ml.spill.jsonl")
    background: Annotated[int, Field(ge=1)] = 64
    seed: int | None = None


def serving_settings(config: Config) -> ServingSettings:
    """Return the checked `[serving]` section of a configuration.

    Raises:
        ConfigError: With one line per mistake.
    """
    return parse_section(ServingSettings, config.sections["serving"], where=config.source, prefix="serving.")
