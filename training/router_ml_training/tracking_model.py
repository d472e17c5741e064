"""The router as an MLflow model: a frame of requests in, a frame of decisions out.

This file is copied into the model beside a copy of `router_ml`, and MLflow loads it from there, on machines that have
nothing of this project installed: it must import nothing else of `router_ml_training`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router_ml.bundle import load_bundle
from router_ml.config import USE_CASES, ExplorationSettings, PolicySettings, UseCase
from router_ml.errors import RequestError
from router_ml.registry import require
from router_ml.router import Router
from router_ml.schema import Decision, Request

__all__ = ["COLUMNS", "EXAMPLE", "RoutingModel", "columns_of"]

# What a frame may hold, and its types in MLflow's words: `prompt` or `messages` in every row, the rest optional.
COLUMNS: Mapping[str, str] = {
    "prompt": "string",
    "messages": "string",
    "tools": "string",
    "response_format": "string",
    "max_tokens": "double",
    "tenant": "string",
    "feature": "string",
    "use_case": "string",
    "session_id": "string",
    "quality": "double",
}
EXAMPLE: Sequence[Mapping[str, Any]] = (
    {"prompt": "What is the capital of France?", "use_case": "interactive_chat"},
    {"prompt": "Prove that there are infinitely many primes, and generalise.", "use_case": "batch"},
)
_AS_JSON = ("messages", "tools", "response_format")


class RoutingModel:
    """What `mlflow.pyfunc.load_model` wraps: decides for every row of a frame, explores nothing, keeps no state.

    Args:
        bundle: The bundle's folder.
        quality: Share of the best tier's quality to keep where a row does not say, in (0, 1].
    """

    def __init__(self, bundle: Path, quality: float) -> None:
        cases = {name: UseCase(**case) for name, case in USE_CASES.items()}
        nothing_tried = ExplorationSettings(up=0.0, audit=0.0, shadow=0.0)
        self._router = Router(load_bundle(bundle), PolicySettings(quality=quality), nothing_tried, cases)

    def predict(self, data: Any) -> Any:
        """Return the decisions for a pandas frame of requests, as a frame with its index.

        Raises:
            MlflowException: When a row holds no request that can be read: the error whose words MLflow's server hands
                on, which are those of our own.
        """
        frames = require("pandas", extra="training", why="to route a frame of requests")
        rows = data.astype(object).where(data.notna(), None).to_dict("records")
        decided = [self._decide(i, row) for i, row in enumerate(rows)]
        columns = list(columns_of(self._router.ladder.names))
        return frames.DataFrame(decided, columns=columns, index=data.index)

    def _decide(self, i: int, row: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in row.items() if name in COLUMNS and value is not None}
        try:
            decision = self._router.route(
                _request(given),
                decision_id=str(i),
                # Without exploration there is nothing to draw: the decision is the same whatever the state.
                rng=np.random.default_rng(0),
                quality=given.get("quality"),
            )
        except RequestError as error:
            mlflow = require("mlflow.exceptions", extra="training", why="to route a frame of requests")
            raise mlflow.MlflowException.invalid_parameter_value(f"row {i}: {error}") from error
        return _columns(decision)


def columns_of(tiers: Sequence[str]) -> dict[str, str]:
    """Return the columns of a frame of decisions and their types in MLflow's words, for a ladder's tier names."""
    kinds = dict.fromkeys(("tier", "model", "escalate_to", "reason"), "string")
    kinds |= {"quality": "double", "expected_cost_usd": "double"}
    return {**kinds, **{f"adequacy.{name}": "double" for name in tiers}, "policy_version": "string"}


def _columns(decision: Decision) -> dict[str, Any]:
    return {
        "tier": decision.tier,
        "model": decision.model,
        "escalate_to": decision.plan.escalate_to,
        "reason": decision.reason,
        "quality": decision.quality,
        "expected_cost_usd": decision.expected_cost_usd[decision.tier],
        **{f"adequacy.{name}": value for name, value in decision.adequacy.items()},
        "policy_version": decision.policy_version,
    }


def _request(given: Mapping[str, Any]) -> Request:
    if ("prompt" in given) == ("messages" in given):
        raise RequestError("expected either a prompt or messages, as JSON", param="messages")
    parts: dict[str, Any] = {name: _parsed(name, given[name]) for name in _AS_JSON if name in given}
    messages = parts.pop("messages", None)
    if messages is None:
        messages = [{"role": "user", "content": str(given["prompt"])}]
    if not messages:
        raise RequestError("messages: expected at least one message", param="messages")
    parts |= {name: str(given[name]) for name in ("tenant", "feature", "use_case", "session_id") if name in given}
    return Request(messages=messages, max_tokens=_tokens(given.get("max_tokens")), **parts)


def _parsed(name: str, text: Any) -> Any:
    kind = dict if name == "response_format" else list
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"{name}: not valid JSON ({error})", param=name) from error
    if not isinstance(found, kind) or not all(isinstance(one, dict) for one in found if kind is list):
        wanted = "an object" if kind is dict else "a list of objects"
        raise RequestError(f"{name}: expected {wanted}, as JSON", param=name)
    return found


def _tokens(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) or not float(value).is_integer() or value < 0:
        raise RequestError(f"max_tokens: expected a whole number of tokens, got {value!r}", param="max_tokens")
    return int(value)


def _load_pyfunc(
    path: str, model_config: Mapping[str, Any] | None = None
) -> RoutingModel:  # MLflow looks for this name
    return RoutingModel(Path(path), float((model_config or {}).get("quality", 0.97)))
