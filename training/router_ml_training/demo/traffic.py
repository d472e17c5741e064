"""Traffic for the demo: the official OpenAI client asks, users give thumbs, a judge reads background answers."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from router_ml.registry import require
from router_ml.schema import Interaction, Request
from router_ml_training.simulate.outcomes import OutcomeTable
from router_ml_training.simulate.truth import Truth

__all__ = ["Traffic", "judge_background", "send"]

_CLIENTS = 4
# What people do who are asked nothing: disappointment speaks more often than satisfaction.
_THUMB_IF_GOOD, _THUMB_IF_BAD = 0.3, 0.6
_GOOD = 0.9


@dataclass(slots=True)
class Traffic:
    """What came of the requests: answers by tier, escalations, feedback, errors, and the quality users really got."""

    n: int = 0
    answered_by: Counter[str] = field(default_factory=Counter)
    escalated: int = 0
    failed: int = 0
    thumbs_up: int = 0
    thumbs_down: int = 0
    streamed: int = 0
    versions: Counter[str] = field(default_factory=Counter)
    quality: list[float] = field(default_factory=list)

    def record(self) -> dict[str, object]:
        """Return plain values, as JSON can hold them."""
        return {
            "requests": self.n,
            "failed": self.failed,
            "streamed": self.streamed,
            "answered_by": dict(self.answered_by),
            "escalated": self.escalated,
            "feedback": {"up": self.thumbs_up, "down": self.thumbs_down},
            "policy_versions": dict(self.versions),
            "quality": float(np.mean(self.quality)) if self.quality else None,
        }


def send(
    table: OutcomeTable, url: str, *, rng: np.random.Generator, progress: Callable[[int], None] = lambda _: None
) -> Traffic:
    """Send every prompt of a table through the service, and feed back what a user would say.

    Args:
        table: Prompts, with the true quality of every tier's answer.
        url: Base URL of the service.
        rng: Decides who streams and who gives a thumb.
        progress: Called with the number of requests done.
    """
    openai = require("openai", extra="dev", why="send the demo's requests")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="demo", max_retries=0, timeout=60.0)
    traffic, lock = Traffic(), threading.Lock()
    draws = rng.random((len(table), 2))

    def one(i: int) -> None:
        outcome = _ask(client, openai, table.requests[i], stream=bool(draws[i, 0] < 0.25))
        with lock:
            _count(traffic, outcome)
            progress(traffic.n)
        if outcome is None:
            return
        quality = float(table.quality[i, table.tiers.index(outcome["tier"])])
        thumb = draws[i, 1] < (_THUMB_IF_GOOD if quality >= _GOOD else _THUMB_IF_BAD)
        if thumb:
            name = outcome["decision_id"]
            _feed_back(client, name, source="user", adequate=quality >= _GOOD, key=f"thumb-{name}")
        with lock:
            traffic.quality.append(quality)
            traffic.thumbs_up += int(thumb and quality >= _GOOD)
            traffic.thumbs_down += int(thumb and quality < _GOOD)

    with client, ThreadPoolExecutor(_CLIENTS) as pool:
        list(pool.map(one, range(len(table))))
    return traffic


def judge_background(table: OutcomeTable, recorded: Iterable[Interaction], url: str) -> Counter[str]:
    """Judge every answer that was fetched in the background, as a rubric would, and count the requests by mode.

    Args:
        table: The prompts, with the true quality of every tier's answer.
        recorded: What the service has recorded.
        url: Base URL of the service.
    """
    openai = require("openai", extra="dev", why="judge the demo's background answers")
    truth, judged = Truth(table), Counter[str]()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="demo", max_retries=0, timeout=60.0) as client:
        for item in recorded:
            known = None if item.mode == "live" else truth.find(item.request.messages)
            if known is None:
                continue
            said = [
                {"source": "judge", "tier": one.tier, "adequate": known.answers[one.model].quality >= _GOOD}
                for one in item.attempts
                if one.error is None
            ]
            if said:
                _feed_back(client, item.id, verdicts=said, key=f"judge-{item.id}")
                judged[item.mode] += 1
    return judged


def _ask(client: Any, openai: Any, request: Request, *, stream: bool) -> dict[str, Any] | None:
    extra = {
        "router": {
            name: value
            for name in ("tenant", "feature", "use_case", "session_id")
            if (value := getattr(request, name)) is not None
        }
    }
    body: dict[str, Any] = {"model": "auto", "messages": list(request.messages), "extra_body": extra}
    for name in ("tools", "response_format", "max_tokens"):
        if (value := getattr(request, name)) is not None:
            body[name] = value
    try:
        if stream:
            chunks = client.chat.completions.create(**body, stream=True)
            return _facts(_first_router(chunks), streamed=True)
        return _facts(client.chat.completions.create(**body).model_extra["router"], streamed=False)
    except openai.APIError:
        return None


def _first_router(chunks: Iterator[Any]) -> Mapping[str, Any]:
    found: list[Mapping[str, Any]] = []
    for chunk in chunks:  # to the end, as a client would
        router = (chunk.model_extra or {}).get("router")
        if router is not None:
            found.append(router)
    return found[0]


def _facts(router: Mapping[str, Any], *, streamed: bool) -> dict[str, Any]:
    return {**router, "streamed": streamed}


def _count(traffic: Traffic, outcome: Mapping[str, Any] | None) -> None:
    traffic.n += 1
    if outcome is None:
        traffic.failed += 1
        return
    traffic.answered_by[outcome["tier"]] += 1
    traffic.escalated += int(outcome["attempts"] > 1)
    traffic.streamed += int(outcome["streamed"])
    traffic.versions[outcome["policy_version"]] += 1


def _feed_back(client: Any, decision_id: str, **said: Any) -> None:
    client.post("/feedback", cast_to=object, body={"decision_id": decision_id, **said})
