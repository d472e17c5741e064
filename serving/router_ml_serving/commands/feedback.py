"""`router-ml feedback`: tell a running service what came of an answer."""

from __future__ import annotations

import argparse
import json
import os
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any

from router_ml.cli.output import emit
from router_ml.errors import RouterError, UsageError

__all__ = ["add_arguments", "run"]

_TIMEOUT_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command takes."""
    parser.add_argument("decision_id", help="the decision (header x-router-decision-id)")
    judgement = parser.add_mutually_exclusive_group(required=True)
    judgement.add_argument("--adequate", action="store_const", const=True, dest="adequate", help="it was good enough")
    judgement.add_argument("--inadequate", action="store_const", const=False, dest="adequate", help="it was not")
    judgement.add_argument("--score", type=float, help="how good it was, from 0 to 1")
    parser.add_argument("--source", default="user", choices=["user", "judge", "human", "check"])
    parser.add_argument("--tier", help="whose answer was judged (default: the one that was given)")
    parser.add_argument("--reason", help="why, in one sentence")
    parser.add_argument("--key", help="name of this feedback; sent twice, it counts once")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the service (default: %(default)s)")
    parser.add_argument("--api-key-env", help="environment variable with the service's API key")


def run(args: argparse.Namespace) -> int:
    """Send the feedback; it is on the service's disk when this returns.

    Raises:
        UsageError: When the service does not take it.
        RouterError: When the service cannot be reached.
    """
    fields = ("decision_id", "adequate", "score", "source", "tier", "reason", "key")
    body = {name: value for name in fields if (value := getattr(args, name)) is not None}
    answer = _post(args.url, body, os.environ.get(args.api_key_env) if args.api_key_env else None)
    text = "recorded" if answer["recorded"] else "already known"
    emit(args, answer, f"{text}: {answer['feedback_id']}")
    return 0


def _post(url: str, body: dict[str, Any], key: str | None) -> dict[str, Any]:  # JSON of the wire
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url: expected http://… or https://…, got {url!r}")
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{url.rstrip('/')}/v1/feedback", json.dumps(body).encode(), headers)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310  checked above
            return _answer(response.read())
    except urllib.error.HTTPError as error:
        with error:
            raise UsageError(f"{url}: {_message(error)}") from error
    except (ValueError, HTTPException) as error:
        raise RouterError(f"{url}: what answers there is not `router-ml serve`; check --url") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise RouterError(f"{url}: cannot be reached ({reason}); is `router-ml serve` running there?") from error


def _answer(raw: bytes) -> dict[str, Any]:
    answer = json.loads(raw)
    if not isinstance(answer, dict) or not {"recorded", "feedback_id"} <= answer.keys():
        message = "not the answer to feedback"
        raise ValueError(message)
    return answer


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {error.code}"
