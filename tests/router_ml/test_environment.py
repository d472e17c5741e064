"""The environment: what it sets, slips that are refused, and variables of others that are left alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.environment import overlay
from router_ml.errors import ConfigError

SECTIONS = ("models_dir", "tiers", "policy", "store", "serving", "use_cases")


def laid(environ: dict[str, str], raw: dict[str, Any] | None = None) -> dict[str, Any]:
    return overlay(raw or {}, environ, sections=SECTIONS)


def test_two_underscores_go_one_level_down_and_values_are_read_as_toml() -> None:
    environ = {
        "ROUTER_ML_POLICY__QUALITY": "0.95",
        "ROUTER_ML_STORE__TEXT": "false",
        "ROUTER_ML_STORE__URL": "sqlite:///a.db",
        "ROUTER_ML_USE_CASES__CHAT__TTFT_MS": "inf",
        "ROUTER_ML_MODELS_DIR": "elsewhere",
    }
    assert laid(environ, {"policy": {"quality": 0.9, "max_attempts": 1}}) == {
        "policy": {"quality": 0.95, "max_attempts": 1},
        "store": {"text": False, "url": "sqlite:///a.db"},
        "use_cases": {"chat": {"ttft_ms": float("inf")}},
        "models_dir": "elsewhere",
    }


def test_what_was_read_from_the_file_is_not_changed() -> None:
    raw = {"policy": {"quality": 0.9}}
    laid({"ROUTER_ML_POLICY__QUALITY": "0.5"}, raw)
    assert raw == {"policy": {"quality": 0.9}}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ROUTER_ML_POLICY_QUALITY", "ROUTER_ML_POLICY__QUALITY"),
        ("ROUTER_ML_SERVING_PORT", "ROUTER_ML_SERVING__PORT"),
        ("ROUTER_ML_USE_CASES_CHAT", "ROUTER_ML_USE_CASES__CHAT"),
    ],
)
def test_one_underscore_instead_of_two_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: no such setting \(did you mean {meant}\?"):
        laid({name: "1"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ROUTER_ML_CONFIG", "router.toml"),
        ("ROUTER_ML_OUTCOMES", "/data"),
        ("ROUTER_ML_ADMIN_KEY", "secret"),
        ("ROUTER_ML_TEST_POSTGRES", "1"),
        ("ROUTER_ML_STORE_SERVICE_HOST", "10.0.0.1"),
        ("ROUTER_ML_STORE_SERVICE_PORT_HTTP", "80"),
        ("ROUTER_ML_SERVING_PORT", "tcp://10.0.0.1:80"),
        ("ROUTER_ML_SERVING_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("OTHER_POLICY_QUALITY", "1"),
    ],
)
def test_variables_that_mean_something_else_are_left_alone(name: str, value: str) -> None:
    assert laid({name: value}) == {}


def test_a_variable_that_the_configuration_takes_a_key_from_is_no_slip() -> None:
    raw = {"serving": {"api_key_env": "ROUTER_ML_SERVING_KEY"}, "tiers": [{"api_key_env": "ROUTER_ML_TIERS_KEY"}]}
    environ = {"ROUTER_ML_SERVING_KEY": "a", "ROUTER_ML_TIERS_KEY": "b", "ROUTER_ML_SERVING__ADMIN_ENV": "STORE_ENV"}
    assert laid(environ, raw)["serving"]["api_key_env"] == "ROUTER_ML_SERVING_KEY"


@given(st.text("ROUTE_MLPICYAD", max_size=25), st.text(max_size=10))
def test_no_variable_crashes_and_what_is_refused_is_named(rest: str, value: str) -> None:
    name = f"ROUTER_ML_{rest}"
    slip = "__" not in name and any(rest.startswith(f"{one.upper()}_") for one in SECTIONS)
    with pytest.raises(ConfigError, match=name) if slip else nullcontext():
        laid({name: value})
