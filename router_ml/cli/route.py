"""`router-ml route "prompt"`: show the decision for one prompt or chat body; nothing is sent anywhere."""

from __future__ import annotations

import argparse
import json
import os
import sys
import uuid
from dataclasses import asdict, replace
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import numpy as np

from router_ml.cli.arguments import whole_number
from router_ml.cli.explanation import explained
from router_ml.cli.output import emit
from router_ml.config import Config, load_config
from router_ml.constraints import Context
from router_ml.errors import RequestError, UsageError
from router_ml.explain import explain
from router_ml.router import Router
from router_ml.schema import Decision, Request

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own arguments."""
    parser.add_argument("prompt", nargs="?", help="the prompt, as one user message")
    parser.add_argument("--body", metavar="FILE", help="an OpenAI chat body instead; - reads standard input")
    parser.add_argument("--quality", type=float, help="share of the best tier's quality to keep, in (0, 1]")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="a bundle's folder (default: the one in service)")
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the exploration draw (default 0)")
    parser.add_argument(
        "--explain", action="store_true", help="say what the decision rests on, and what would change it"
    )
    for name in ("use-case", "tenant", "feature"):
        parser.add_argument(f"--{name}", metavar="NAME", help=f"the request's {name.replace('-', ' ')}")


def run(args: argparse.Namespace) -> int:
    """Decide, and print the decision."""
    config = load_config(args.config, os.environ)
    router = Router.load(config, args.bundle)
    request = _request(args)
    decision = router.route(
        request,
        decision_id=str(uuid.uuid4()),
        rng=np.random.default_rng(args.seed),
        quality=args.quality,
    )
    record = asdict(replace(decision, basis=None))
    del record["basis"]
    if not args.explain:
        del record["utility"]
        emit(args, record, _text(decision))
        return 0
    explanation = explain(router, request, decision, case=_case(config, request))
    relative = router.knobs.price_unit == "relative"
    text = explained(_text(decision), decision, explanation, relative=relative, width=get_terminal_size().columns)
    emit(args, {**record, "explanation": asdict(explanation)}, text)
    return 0


def _case(config: Config, request: Request) -> Context | None:
    case = config.use_cases.get(request.use_case or "")
    if case is None:
        return None
    return Context(None if case.tiers is None else frozenset(case.tiers), case.ttft_ms, case.total_ms)


def _request(args: argparse.Namespace) -> Request:
    if (args.prompt is None) == (args.body is None):
        raise UsageError('expected either a prompt or --body FILE, as in: router-ml route "What is a monad?"')
    body = {"messages": [{"role": "user", "content": args.prompt}]} if args.body is None else _body(args.body)
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise RequestError(f"max_tokens: expected a whole number of tokens, got {limit!r}", param="max_tokens")
    return Request(
        messages=_objects(body, "messages") or (),
        tools=_objects(body, "tools"),
        response_format=_object(body, "response_format"),
        max_tokens=limit,
        tenant=args.tenant,
        feature=args.feature,
        use_case=args.use_case,
    )


def _body(where: str) -> dict[str, Any]:
    try:
        body = json.loads(sys.stdin.read() if where == "-" else Path(where).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{where}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise RequestError(f"{where}: not valid JSON ({error})") from error
    if not isinstance(body, dict):
        raise RequestError(f"{where}: expected a JSON object with messages, got {type(body).__name__}")
    if not body.get("messages"):
        raise RequestError(
            f'{where}: no messages; expected {{"messages": [{{"role": "user", ...}}]}}', param="messages"
        )
    return body


def _objects(body: dict[str, Any], key: str) -> list[dict[str, Any]] | None:
    value = body.get(key)
    if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
        raise RequestError(f"{key}: expected a list of objects", param=key)
    return value


def _object(body: dict[str, Any], key: str) -> dict[str, Any] | None:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise RequestError(f"{key}: expected an object, got {type(value).__name__}", param=key)
    return value


def _text(decision: Decision) -> str:
    escalation = decision.plan.escalate_to
    lines = [
        f"{decision.tier} ({decision.model}){f', then {escalation} if its answer is poor' if escalation else ''}",
        decision.reason,
        f"policy {decision.policy_version}, quality {decision.quality:g}, {decision.overhead_ms:.2f} ms",
    ]
    if decision.constraints_applied:
        lines.insert(2, f"constraints: {'; '.join(decision.constraints_applied)}")
    return "\n".join(lines)
