"""`POST /v1/feedback`: what came of an answer; late and repeated arrival are fine."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response
from ulid import ULID

from router_ml.errors import RequestError
from router_ml.registry import did_you_mean
from router_ml.schema import Feedback, VerdictSource
from router_ml_serving.api import raw_route
from router_ml_serving.service import Service
from router_ml_serving.wire import parse_json

__all__ = ["routes"]

# The last four are the words of vLLM's semantic-router. An answer by a needlessly dear tier was still adequate.
Word = Literal["adequate", "inadequate", "good_fit", "overprovisioned", "underpowered", "failed"]
_ADEQUATE = frozenset({"adequate", "good_fit", "overprovisioned"})
_SELF_EVIDENT = frozenset({"adequate", "inadequate"})


class _Judgement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: VerdictSource = "user"
    tier: str | None = None
    adequate: bool | None = None
    score: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    verdict: Word | None = None
    reason: Annotated[str, Field(max_length=2000)] | None = None

    def says_nothing(self) -> bool:
        return self.adequate is None and self.score is None and self.verdict is None


class _Body(_Judgement):
    decision_id: Annotated[str, Field(min_length=1, max_length=128)]
    key: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    verdicts: Annotated[tuple[_Judgement, ...], Field(max_length=32)] = ()

    @model_validator(mode="after")
    def _says_something(self) -> _Body:
        judgements = self.verdicts or (self,)
        if (self.verdicts and not self.says_nothing()) or any(one.says_nothing() for one in judgements):
            message = "give one of adequate, score or verdict, or a list of such objects as verdicts"
            raise ValueError(message)
        return self


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def feedback(request: Request) -> Response:
        """Keep a judgement about an earlier decision; it is on the disk when this answers."""
        service.authorize(request)
        body = _read(await service.read_body(request))
        key = body.key or str(ULID())
        judgements: tuple[_Judgement, ...] = body.verdicts or (body,)
        for one in judgements:
            _check_tier(one.tier, service.holder.current.ladder.names)
        recorded = False
        for i, one in enumerate(judgements):
            record = _feedback(one, service, key if len(judgements) == 1 else f"{key}#{i}")
            new = await service.recorder.feedback(body.decision_id, record)
            service.telemetry.feedback(one.source, new=new)
            recorded = recorded or new
        return Response(orjson.dumps({"feedback_id": key, "recorded": recorded}), media_type="application/json")

    return [raw_route("POST", "/v1/feedback", feedback, body=_Body.model_json_schema())]


def _read(raw: bytes) -> _Body:
    try:
        return _Body.model_validate(parse_json(raw))
    except ValidationError as error:
        found = error.errors()
    where = ".".join(str(part) for part in found[0]["loc"]) or None
    message = "; ".join(_explain(item) for item in found)
    raise RequestError(message, param=where)


def _explain(item: Any) -> str:  # pydantic's error details
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = sorted(_Body.model_fields)
        return f"{where}: unknown key{did_you_mean(where, known)}; known: {', '.join(known)}"
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _check_tier(tier: str | None, known: tuple[str, ...]) -> None:
    if tier is not None and tier not in known:
        hint = did_you_mean(tier, list(known))
        raise RequestError(f"no tier is called '{tier}'{hint}; tiers: {', '.join(known)}", param="tier")


def _feedback(one: _Judgement, service: Service, key: str) -> Feedback:
    adequate = one.adequate
    if adequate is None and one.verdict is not None:
        adequate = one.verdict in _ADEQUATE
    # The word says more than adequate or not: it is kept where nothing else was said.
    word = one.verdict if one.verdict not in _SELF_EVIDENT else None
    return Feedback(
        ts=service.clock(),
        source=one.source,
        tier=one.tier,
        adequate=adequate,
        score=one.score,
        reason=one.reason or word,
        key=key,
    )
