"""Environment variables laid over a configuration: `ROUTER_ML_` + section + two underscores + key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_ml.errors import ConfigError

__all__ = ["overlay"]

_PREFIX = "ROUTER_ML_"
# Kubernetes tells every container of the services around it: of one called `router-ml-store` by
# ROUTER_ML_STORE_SERVICE_HOST, ROUTER_ML_STORE_PORT=tcp://..., ROUTER_ML_STORE_PORT_80_TCP_ADDR.
_OF_A_CLUSTER = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?")


def overlay(raw: Mapping[str, Any], environ: Mapping[str, str], *, sections: Sequence[str]) -> dict[str, Any]:
    """Return a configuration with the environment over it.

    Args:
        raw: What was read from a file.
        environ: The environment.
        sections: Names at the top level: what begins with one of them and a single underscore is taken for a slip.

    Raises:
        ConfigError: When a variable sets something below a plain value, or has one underscore instead of two.
    """
    merged = dict(raw)
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or ("__" not in name and name != f"{_PREFIX}MODELS_DIR"):
            continue
        *above, key = name.removeprefix(_PREFIX).lower().split("__")
        target = merged
        for section in above:
            inner = target.get(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{name}: '{section}' is a value, not a section; nothing can be set below it")
            target[section] = dict(inner)
            target = target[section]
        target[key] = _scalar(environ[name])
    _refuse_slips(environ, sections, set(_keys_in_environment(merged)))
    return merged


def _refuse_slips(environ: Mapping[str, str], sections: Sequence[str], named: set[str]) -> None:
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or "__" in name or name in named or _is_of_a_cluster(name, environ[name]):
            continue
        rest = name.removeprefix(_PREFIX)
        section = next((one.upper() for one in sections if rest.startswith(f"{one.upper()}_")), None)
        if section is not None and rest != "MODELS_DIR":
            meant = f"{_PREFIX}{section}__{rest.removeprefix(section + '_')}"
            raise ConfigError(f"{name}: no such setting (did you mean {meant}? Two underscores go one level down)")


def _is_of_a_cluster(name: str, value: str) -> bool:
    return bool(_OF_A_CLUSTER.search(name)) or value.startswith(("tcp://", "udp://", "sctp://"))


def _keys_in_environment(value: Any) -> Iterator[str]:
    """Yield the names of variables that a configuration asks for: the values of its `..._env` keys."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(item, str) and str(key).endswith("_env"):
                yield item
            yield from _keys_in_environment(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _keys_in_environment(item)


def _scalar(text: str) -> object:
    # A value is read as TOML would (numbers, booleans, arrays); anything else is a string.
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
