"""`router.toml` and its environment: read once, merged, checked as a whole, every mistake explained.

The library owns the sections below; `[serving]`, `[tenants]`, `[rollout]`, `[golden]`, `[training]`, `[gates]`,
`[alerts]` and `[mlflow]` belong to the sides that use them (their `settings.py`, `tenants.py`) and are kept here as
they were read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError

from router_ml.environment import overlay
from router_ml.errors import ConfigError
from router_ml.ladder import CATALOGUE, Capability, Ladder, Price, Tier, price_of
from router_ml.registry import did_you_mean

__all__ = [
    "USE_CASES",
    "Config",
    "ExplorationSettings",
    "ObjectSettings",
    "PolicySettings",
    "StoreSettings",
    "UseCase",
    "load_config",
    "parse_section",
]

# Milliseconds that people wait gladly, by use case; `[use_cases.NAME]` overrides them key by key.
USE_CASES: Mapping[str, Mapping[str, float]] = {
    "interactive_chat": {"ttft_ms": 1500.0, "total_ms": 5000.0},
    "autocomplete": {"ttft_ms": 200.0, "total_ms": 500.0},
    "batch": {"total_ms": 30_000.0},
    "inline_classification": {"ttft_ms": 300.0, "total_ms": 1000.0},
    "email": {"ttft_ms": 2000.0, "total_ms": 8000.0},
}
# Sections of the two sides: checked by the side that owns them, opaque to the library.
SIDE_SECTIONS = ("serving", "tenants", "rollout", "golden", "training", "gates", "alerts", "mlflow")
S = TypeVar("S", bound=BaseModel)
Rate = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PolicySettings(_Section):
    """`[policy]`: what the router optimises.

    `quality` is the share of the best tier's quality to keep, in (0, 1]; `safe_tier` answers what the model has
    never seen the like of (default: the tier of the highest quality in training); `max_attempts` counts the first.
    """

    quality: Annotated[float, Field(gt=0.0, le=1.0)] = 0.97
    safe_tier: str | None = None
    max_attempts: Annotated[int, Field(ge=1, le=2)] = 2


class ExplorationSettings(_Section):
    """`[exploration]`: what is tried for the sake of learning, as shares of requests.

    `up` are answered by a dearer tier than planned. `audit`, whatever the request is, have every tier run in the
    background. Of the others that a dearer tier answers, `shadow` have a cheaper one run in the background. What runs
    in the background is never shown.
    """

    up: Rate = 0.01
    audit: Rate = 0.02
    shadow: Rate = 0.1


class StoreSettings(_Section):
    """`[store]`: where events go; `text = false` keeps features and hashes instead of prompts and answers.

    Interactions older than `retention_days` are deleted by the running service; None keeps them.
    """

    url: str = "sqlite:///router_ml.db"
    text: bool = True
    retention_days: Annotated[float, Field(gt=0.0, le=36_500.0)] | None = None


class ObjectSettings(_Section):
    """`[objects]`: S3-compatible object storage, where a location is an `s3://` URL.

    `models` is where `router-ml sync` keeps bundles. Keys are in the environment, under the names given here; without
    them the machine's own role is used. A request that fails is tried again for `retry_s` seconds.
    """

    models: Annotated[str, Field(pattern=r"^s3://")] | None = None
    endpoint_url: Annotated[str, Field(pattern=r"^https?://[^@\s]+$")] | None = None
    region: str | None = None
    path_style: bool = True
    access_key_env: Annotated[str, Field(min_length=1)] = "AWS_ACCESS_KEY_ID"
    secret_key_env: Annotated[str, Field(min_length=1)] = "AWS_SECRET_ACCESS_KEY"  # noqa: S105  a name
    session_token_env: Annotated[str, Field(min_length=1)] = "AWS_SESSION_TOKEN"  # noqa: S105  a name
    retry_s: Annotated[float, Field(ge=0.0, le=3600.0)] = 30.0


class UseCase(_Section):
    """`[use_cases.NAME]`: latency budgets of one kind of request (None or `inf`: no limit), and its tiers.

    A client that streams waits at most `ttft_ms` for the first token, and `total_ms` for the whole where it is held or
    `ttft_ms` is not set; any other `total_ms`, or `ttft_ms` where that alone is set.
    """

    ttft_ms: Annotated[float, Field(gt=0.0)] | None = None
    total_ms: Annotated[float, Field(gt=0.0)] | None = None
    tiers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


class _TierEntry(_Section):
    # As written by a person: prices may be left to the catalogue.
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    model: str = Field(min_length=1)
    base_url: str | None = None
    api_key_env: str | None = None
    input_usd_per_mtok: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    output_usd_per_mtok: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    cached_input_usd_per_mtok: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] | None = None
    context_window: Annotated[int, Field(gt=0)] = 128_000
    capabilities: frozenset[Capability] = frozenset({"tools", "vision", "json"})
    latency_ms: Annotated[float, Field(ge=0.0)] = 0.0


class _File(_Section):
    models_dir: str = "models"
    tiers: tuple[_TierEntry, ...] = ()
    prices: dict[str, Price] = Field(default_factory=dict)
    policy: PolicySettings = Field(default_factory=PolicySettings)
    exploration: ExplorationSettings = Field(default_factory=ExplorationSettings)
    store: StoreSettings = Field(default_factory=StoreSettings)
    objects: ObjectSettings = Field(default_factory=ObjectSettings)
    use_cases: dict[str, UseCase] = Field(default_factory=dict)
    serving: dict[str, Any] = Field(default_factory=dict)
    tenants: dict[str, Any] = Field(default_factory=dict)
    rollout: dict[str, Any] = Field(default_factory=dict)
    golden: dict[str, Any] = Field(default_factory=dict)
    training: dict[str, Any] = Field(default_factory=dict)
    gates: dict[str, Any] = Field(default_factory=dict)
    alerts: dict[str, Any] = Field(default_factory=dict)
    mlflow: dict[str, Any] = Field(default_factory=dict)


class Config(_Section):
    """The whole configuration; `ladder` is None when the file names no tiers (the bundle's ladder is used then)."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    source: str
    ladder: Ladder | None
    models_dir: Path
    policy: PolicySettings
    exploration: ExplorationSettings
    store: StoreSettings
    objects: ObjectSettings
    use_cases: dict[str, UseCase]
    sections: dict[str, dict[str, Any]]


def load_config(path: Path | None, environ: Mapping[str, str]) -> Config:
    """Read `router.toml`, lay the environment over it and check the whole.

    `ROUTER_ML_POLICY__QUALITY=0.95` overrides `quality` in `[policy]`: two underscores go one level down.

    Args:
        path: The file; None uses defaults and the environment alone.
        environ: The environment, usually `os.environ`.

    The use cases that everybody has (`USE_CASES`) are there without being named.

    Raises:
        ConfigError: With every mistake found, each with its key and what was expected.
    """
    where = str(path) if path else "defaults"
    raw = overlay(_read(path) if path else {}, environ, sections=tuple(_File.model_fields))
    file = parse_section(_File, _with_known_use_cases(raw), where=where)
    tiers = [_tier(entry, i, file.prices, where) for i, entry in enumerate(file.tiers)]
    try:
        ladder = Ladder.of(tiers) if tiers else None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    _check_tier_names(file, ladder, where)
    return Config(
        source=where,
        ladder=ladder,
        models_dir=Path(file.models_dir),
        policy=file.policy,
        exploration=file.exploration,
        store=file.store,
        objects=file.objects,
        use_cases=file.use_cases,
        sections={name: getattr(file, name) for name in SIDE_SECTIONS},
    )


def parse_section(model: type[S], raw: Mapping[str, Any], *, where: str, prefix: str = "") -> S:
    """Check one section against its model, reporting all mistakes at once.

    Args:
        model: The section's pydantic model.
        raw: What was read.
        where: File name for the message.
        prefix: Key path of the section, such as "serving.".

    Raises:
        ConfigError: With one line per mistake.
    """
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        mistakes = [_explain(model, item, prefix) for item in error.errors()]
    plural = "problem" if len(mistakes) == 1 else "problems"
    raise ConfigError(f"{where}: {len(mistakes)} {plural}\n" + "\n".join(f"  {line}" for line in mistakes))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; copy router.toml from the project, or pass --config") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); pass a file with --config") from error


def _with_known_use_cases(raw: dict[str, Any]) -> dict[str, Any]:
    # Key by key: who sets one budget of a known use case keeps the other.
    given = raw.get("use_cases", {})
    if not isinstance(given, dict):
        return raw
    cases: dict[str, Any] = {name: dict(case) for name, case in USE_CASES.items()}
    for name, case in given.items():
        cases[name] = {**cases.get(name, {}), **case} if isinstance(case, dict) else case
    return {**raw, "use_cases": cases}


def _tier(entry: _TierEntry, i: int, overrides: Mapping[str, Price], where: str) -> Tier:
    given = entry.model_dump(exclude_none=True)
    listed = price_of(entry.model, overrides)
    if listed is not None:
        # A tier that names its own prices does not inherit a cached price that belongs to the listed ones.
        own = "input_usd_per_mtok" in given or "output_usd_per_mtok" in given
        inherited = listed.model_dump(exclude={"cached_input_usd_per_mtok"} if own else None, exclude_none=True)
        given = {**inherited, **given}
    missing = [key for key in ("input_usd_per_mtok", "output_usd_per_mtok") if key not in given]
    if missing:
        known = ", ".join(sorted(CATALOGUE))
        message = (
            f"{where}: tiers[{i}] ('{entry.name}'): no price is known for the model '{entry.model}'; "
            f"set {' and '.join(missing)}, or use one of {known}"
        )
        raise ConfigError(message)
    return Tier.model_validate(given)


def _check_tier_names(file: _File, ladder: Ladder | None, where: str) -> None:
    if ladder is None:
        return
    wanted: list[tuple[str, Sequence[str]]] = [
        (f"use_cases.{name}.tiers", case.tiers) for name, case in file.use_cases.items() if case.tiers is not None
    ]
    if file.policy.safe_tier is not None:
        wanted.append(("policy.safe_tier", [file.policy.safe_tier]))
    for key, names in wanted:
        for name in names:
            if name not in ladder.names:
                hint = did_you_mean(name, list(ladder.names))
                raise ConfigError(f"{where}: {key}: no tier is called '{name}'{hint}; tiers: {', '.join(ladder.names)}")


def _explain(model: type[BaseModel], item: Mapping[str, Any], prefix: str) -> str:
    path = (prefix + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"]).lstrip(".")).strip(".")
    if item["type"] == "extra_forbidden":
        known = _known_keys(model, item["loc"][:-1])
        return f"{path}: unknown key{did_you_mean(str(item['loc'][-1]), known)}; known here: {', '.join(known)}"
    if item["type"] == "missing":
        return f"{path}: missing"
    message = str(item["msg"])
    if item["type"] == "value_error":  # our own sentence, which says what was found
        return f"{path}: {message.removeprefix('Value error, ')}"
    hint = ""
    value = item["input"]
    if path.endswith("quality") and isinstance(value, int | float) and 1 < value <= 100:
        hint = f" (did you mean {value / 100:g}?)"
    return f"{path}: {message}, got {value!r}{hint}"


def _known_keys(model: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    current: Any = model.model_fields["root"].annotation if issubclass(model, RootModel) else model
    for part in loc:
        annotation = current.model_fields[part].annotation if isinstance(part, str) and _has(current, part) else current
        current = _record_in(annotation) or current
    return sorted(current.model_fields)


def _has(model: Any, name: str) -> bool:
    return name in getattr(model, "model_fields", {})


def _record_in(annotation: Any) -> type[BaseModel] | None:
    # The record inside `tuple[Record, ...]`, `dict[str, Record]` or `Record | None`.
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in getattr(annotation, "__args__", ()) if (found := _record_in(arg))), None)
