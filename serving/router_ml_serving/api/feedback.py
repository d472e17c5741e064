"""`POST /v1/feedback`: what came of an answer; late and repeated arrival are fine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response
from ulid import ULID

from router_ml.errors import RequestError
from router_ml.registry import did_you_mean
from router_ml.schema import Feedback
from router_ml.store import Deciding
from router_ml_serving.api import raw_route
from router_ml_serving.api.openapi import answers, object_with
from router_ml_serving.auth import Caller
from router_ml_serving.problems import BodyTooLarge, NoPermission, WrongTenant
from router_ml_serving.service import Service, now_s
from router_ml_serving.tenants import FeedbackSource
from router_ml_serving.wire import parse_json

__all__ = ["routes"]

PATH = "/v1/feedback"

# Thirty-two verdicts with the longest reasons there may be, in any script, fit in.
_MAX_BYTES = 256 * 1024
_MAX_CHARS = 128
_DECISION_HEADER, _KEY_HEADER = "x-router-decision-id", "idempotency-key"
# Who is right when they differ about one answer.
_WEIGHTIEST = ("check", "human", "judge", "user")
# The last four are the words of vLLM's semantic-router. An answer by a needlessly dear tier was still adequate.
Word = Literal["adequate", "inadequate", "good_fit", "overprovisioned", "underpowered", "failed"]
_ADEQUATE = frozenset({"adequate", "good_fit", "overprovisioned"})
_SELF_EVIDENT = frozenset({"adequate", "inadequate"})


def _printable(name: str) -> str:
    if not (0 < len(name) <= _MAX_CHARS and name.isascii() and name.isprintable() and " " not in name):
        message = f"expected 1 to {_MAX_CHARS} visible ASCII characters, such as 01M80ZQ3VT"
        raise ValueError(message)
    return name


Name = Annotated[str, AfterValidator(_printable)]


class _Judgement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    source: FeedbackSource = "user"
    tier: str | None = None
    adequate: bool | None = None
    score: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    verdict: Word | None = None
    reason: Annotated[str, Field(max_length=2000)] | None = None

    def says_nothing(self) -> bool:
        return self.adequate is None and self.score is None and self.verdict is None


class _Facts(BaseModel):
    # The `router` object of an answer, handed back as it came.
    model_config = ConfigDict(extra="ignore", frozen=True)

    decision_id: Name | None = None


class _Body(_Judgement):
    decision_id: Name | None = None
    key: Name | None = None
    verdicts: Annotated[tuple[_Judgement, ...], Field(max_length=32)] = ()
    router: _Facts | None = None
    dry_run: bool = False

    @property
    def judgements(self) -> tuple[_Judgement, ...]:
        return self.verdicts or (self,)

    @model_validator(mode="after")
    def _says_something(self) -> _Body:
        if (self.verdicts and not self.says_nothing()) or any(one.says_nothing() for one in self.judgements):
            message = "give beside decision_id one of adequate, score or verdict, or a list of such objects as verdicts"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _nobody_speaks_twice(self) -> _Body:
        said = Counter((one.source, one.tier) for one in self.verdicts)
        unnamed = {one.source for one in self.verdicts if one.tier is None}
        named = {one.source for one in self.verdicts if one.tier is not None}
        twice = sorted({source for (source, _), n in said.items() if n > 1} | (unnamed & named))
        if twice:
            message = (
                f"source '{twice[0]}' speaks twice about one answer; send one verdict per source and tier, and name "
                "the tier in each when there are several"
            )
            raise ValueError(message)
        return self


def routes(service: Service) -> list[APIRoute]:
    """Return the routes of this resource."""

    async def feedback(request: Request) -> Response:
        """Keep a judgement about an earlier decision; it is on the disk when this answers."""
        started_s = now_s()
        caller = service.authorize(request)
        body = _read(await service.read_body(request))
        decision_id = _decision_id(body, request.headers)
        key = _one_of("key", (body.key, _header(request.headers, _KEY_HEADER))) or str(ULID())
        for one in body.judgements:
            _check_source(caller, one.source)
            _check_tier(one.tier, service.holder.current.ladder.names)
        decided = await service.recorder.deciding(decision_id)
        _check_tenant(caller, decided, decision_id)
        records = [_feedback(one, service, _key(key, one, body)) for one in body.judgements]
        answer: dict[str, Any] = {"feedback_id": key, "recorded": False}
        if body.dry_run:
            shown = [record.model_dump(mode="json", exclude_none=True) for record in records]
            answer |= {"dry_run": True, "decision_id": decision_id, "feedback": shown}
            return Response(orjson.dumps(answer), media_type="application/json")
        for record in records:
            new = await service.recorder.feedback(decision_id, record)
            service.telemetry.feedback(record.source, new=new)
            answer["recorded"] = answer["recorded"] or new
        if answer["recorded"]:
            _tell_rollout(service, decision_id, decided, records)
        if service.tracing is not None:
            said = [(one.source, one.tier, one.adequate, one.score) for one in records]
            service.tracing.feedback(PATH, request.scope["headers"], started_s, decision_id, said)
        return Response(orjson.dumps(answer), media_type="application/json")

    said = answers(400, 401, 403, 413, 503, reply=object_with("feedback_id", "recorded", recorded={"type": "boolean"}))
    return [raw_route("POST", PATH, feedback, body=_Body.model_json_schema(), responses=said)]


def _check_source(caller: Caller, source: str) -> None:
    allowed = caller.rules.feedback_sources
    if allowed is not None and source not in allowed:
        raise NoPermission(
            f"feedback of source '{source}' is not for this key: {caller.rules.source}.feedback_sources allows "
            f"{', '.join(sorted(allowed))}"
        )


def _check_tenant(caller: Caller, decided: Deciding | None, decision_id: str) -> None:
    owner = None if decided is None else decided.tenant
    if caller.tenant is not None and owner is not None and owner != caller.tenant:
        raise WrongTenant(f"decision {decision_id} was not made for the tenant of this key, '{caller.tenant}'")


def _tell_rollout(service: Service, decision_id: str, decided: Deciding | None, records: Sequence[Feedback]) -> None:
    # What the client got because a policy chose it: one voice about that answer, its weightiest.
    if decided is None or not decided.chosen:
        return
    said = [one for one in records if one.adequate is not None and one.tier in (None, decided.shown)]
    if said:
        first = min(said, key=lambda one: _WEIGHTIEST.index(one.source))
        adequate = bool(first.adequate)
        service.rollout.feedback(decided.policy_version, adequate, tenant=decided.tenant, decision_id=decision_id)


def _read(raw: bytes) -> _Body:
    if len(raw) > _MAX_BYTES:
        raise BodyTooLarge(f"feedback of {len(raw)} bytes: at most {_MAX_BYTES} are read")
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
        known = sorted(_Body.model_fields if len(item["loc"]) == 1 else _Judgement.model_fields)
        return f"{where}: unknown key{did_you_mean(str(item['loc'][-1]), known)}; known: {', '.join(known)}"
    text = str(item["msg"]).removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _decision_id(body: _Body, headers: Mapping[str, str]) -> str:
    told = body.router.decision_id if body.router else None
    found = _one_of("decision_id", (body.decision_id, told, _header(headers, _DECISION_HEADER)))
    if found is None:
        message = (
            f"decision_id is missing: send it as decision_id, as the answer's own `router` object, or in the header "
            f"{_DECISION_HEADER}"
        )
        raise RequestError(message, param="decision_id")
    return found


def _header(headers: Mapping[str, str], name: str) -> str | None:
    value = headers.get(name)
    if not value:
        return None
    try:
        return _printable(value)
    except ValueError as error:
        raise RequestError(f"header {name}: {error}", param=name) from error


def _one_of(name: str, given: tuple[str | None, ...]) -> str | None:
    """Return what was given, once or several times over.

    Raises:
        RequestError: When two places say different things.
    """
    found = list(dict.fromkeys(value for value in given if value is not None))
    if len(found) > 1:
        raise RequestError(f"{name}: '{found[0]}' in one place, '{found[1]}' in another; send it once", param=name)
    return found[0] if found else None


def _key(key: str, one: _Judgement, body: _Body) -> str:
    # By who says what about whom, not by place: the same verdicts in another order are the same.
    return f"{key}#{one.source}:{one.tier or ''}" if len(body.judgements) > 1 else key


def _check_tier(tier: str | None, known: tuple[str, ...]) -> None:
    if tier is not None and tier not in known:
        hint = did_you_mean(tier, list(known))
        raise RequestError(f"no tier is called '{tier:.60}'{hint}; tiers: {', '.join(known)}", param="tier")


def _feedback(one: _Judgement, service: Service, key: str) -> Feedback:
    adequate = one.adequate
    if adequate is None and one.verdict is not None:
        adequate = one.verdict in _ADEQUATE
    # The word says more than adequate or not: it is kept where nothing else was said.
    word = one.verdict if one.verdict not in _SELF_EVIDENT else None
    # A reason may quote prompt or answer.
    reason = one.reason if service.config.store.text else None
    return Feedback(
        ts=service.clock(),
        source=one.source,
        tier=one.tier,
        adequate=adequate,
        score=one.score,
        reason=reason or word,
        key=key,
    )
