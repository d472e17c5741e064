"""The log format `router_ml.interaction/1`: what was asked, decided, tried, judged and said afterwards.

Two kinds of types live here. Frozen dataclasses are what the hot path holds (`Request`, `Decision`);
pydantic records are what is written and read (`Interaction` and its parts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from router_ml.errors import RecordError
from router_ml.records import record

__all__ = [
    "DECIDED_TIER",
    "GOLDEN",
    "SCHEMA",
    "Answer",
    "Attempt",
    "Decision",
    "Feedback",
    "Interaction",
    "LogProbs",
    "Mode",
    "Plan",
    "Request",
    "RequestBody",
    "StoredAnswer",
    "StoredFeatures",
    "Verdict",
    "VerdictSource",
    "parse_interaction",
]

SCHEMA = "router_ml.interaction/1"
# Tag of an interaction whose answer was fetched by the caller itself: the tier that the decision named.
DECIDED_TIER = "decided_tier"
# Tag of a run of a golden set, and the beginning of its id: clients may send the tag, and never choose an id.
GOLDEN = "golden"
# Some upstreams write -9999 or minus infinity for "practically impossible".
_LOWEST_LOGPROB = -20.0
_UNSURE_LOGPROB = -0.6931471805599453

VerdictSource = Literal["verifier", "rule", "retry", "user", "judge", "human", "check"]
Mode = Literal["live", "shadow", "audit"]


def _utc(ts: datetime) -> datetime:
    try:
        return ts.replace(tzinfo=UTC) if ts.tzinfo is None else ts.astimezone(UTC)
    except OverflowError as error:
        message = "not a time that UTC can express"
        raise ValueError(message) from error


Utc = Annotated[datetime, AfterValidator(_utc)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Unit = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Money = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@record
class Request:
    """What the router sees of one request: the chat body's relevant parts, plus metadata.

    Messages are OpenAI chat messages as plain dictionaries; `content` is a string, a list of parts, or None.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]] | None = None
    response_format: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    tenant: str | None = None
    feature: str | None = None
    use_case: str | None = None
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class LogProbs:
    """The log-probabilities of an answer's tokens in three numbers; `unsure_share` is that of tokens below 1/2."""

    mean: Finite
    lowest: Finite
    unsure_share: Unit

    @classmethod
    def of(cls, values: Sequence[float]) -> LogProbs | None:
        """Summarise the log-probabilities of tokens; None when there are none, or none that is a number."""
        known = [max(float(value), _LOWEST_LOGPROB) for value in values if value <= 0.0]
        if not known:
            return None
        unsure = sum(value < _UNSURE_LOGPROB for value in known)
        return cls(sum(known) / len(known), min(known), unsure / len(known))


@record
class Answer:
    """What one attempt returned, as checks and the verifier look at it."""

    text: str
    finish_reason: str | None
    tool_calls: Sequence[Mapping[str, Any]] = ()
    output_tokens: int | None = None
    logprobs: LogProbs | None = None


@record
class Plan:
    """Which tier answers first, and where to jump if its answer is judged inadequate or it has none (None: nowhere).

    Where there is nowhere to jump, `on_error` is asked if the first tier fails, and only then: it is no better than the
    first, so that no judgement leads to it.
    """

    first: str
    escalate_to: str | None = None
    on_error: str | None = None


@record
class Decision:
    """The answer of the router to one request.

    `adequacy`, `expected_cost_usd` and `propensity` have one entry per tier of the ladder (a tier that a constraint
    excluded has propensity 0). `quality` is the share of the best tier's quality that was asked for, `threshold` the
    shadow price that keeps it, in the unit of the bundle's policy. `judged` says that the plan was chosen because the
    first answer is judged; else `escalate_to` only stands by for an answer that is none. `utility` is the worth of
    the best plan that begins with each tier. `may_hold` says that the budgets leave time to hold the first answer until
    it was looked at, and to ask the other tier then; `usd_price` what a USD was worth in quality. `planned` is the tier
    that would have answered had another not been drawn to explore (None: nothing was explored). `basis` is what the
    decision was made from (request view, features, scores in the bundle's order), for `Router.judge` alone: it holds
    text, and is neither written nor sent.
    """

    decision_id: str
    tier: str
    model: str
    plan: Plan
    policy_version: str
    adequacy: Mapping[str, float]
    expected_cost_usd: Mapping[str, float]
    propensity: Mapping[str, float]
    quality: float
    threshold: float
    explored: bool
    reason: str
    constraints_applied: tuple[str, ...] = ()
    overhead_ms: float = 0.0
    judged: bool = False
    utility: Mapping[str, float] = field(default_factory=dict)
    may_hold: bool = True
    usd_price: float | None = None
    planned: str | None = None
    basis: object = field(default=None, compare=False, repr=False)


class _Record(BaseModel):
    # Unknown fields are moved to `tags` by Interaction before they get here; what is left is a mistake.
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Record):
    """A judgement of one attempt: adequate, inadequate or unknown (None), with its source and, if known, why."""

    adequate: bool | None = None
    score: Unit | None = None
    source: VerdictSource
    reason: str | None = None


class StoredAnswer(_Record):
    """The features of an answer whose text was not kept (`store_text = false`); None where a value is unknown."""

    schema_hash: str
    dense: tuple[Finite | None, ...]
    ids: tuple[int, ...]
    counts: tuple[Finite, ...]


class Attempt(_Record):
    """One call of one tier. An `error` (timeout, 429, 5xx) is no evidence about adequacy.

    `cost_usd` None means that the log did not say; it is then computed from the ladder's prices.
    """

    tier: str = Field(min_length=1)
    model: str = ""
    input_tokens: Count | None = None
    cached_tokens: Count = 0
    output_tokens: Count | None = None
    cost_usd: Money | None = None
    ttft_ms: Money | None = None
    latency_ms: Money | None = None
    finish_reason: str | None = None
    error: str | None = None
    response: str | None = None
    tool_calls: tuple[dict[str, JsonValue], ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    logprobs: LogProbs | None = None
    features: StoredAnswer | None = None


class Feedback(_Record):
    """A judgement that came later, from outside: a thumb, a judge, a human, a deterministic check."""

    ts: Utc
    source: VerdictSource
    tier: str | None = None
    adequate: bool | None = None
    score: Unit | None = None
    reason: str | None = None
    key: str | None = None


class RequestBody(_Record):
    """The parts of the chat body that are logged; empty `messages` when the log keeps no text."""

    messages: tuple[dict[str, JsonValue], ...] = ()
    tools: tuple[dict[str, JsonValue], ...] | None = None
    response_format: dict[str, JsonValue] | None = None
    max_tokens: Count | None = None


class StoredFeatures(_Record):
    """The features of a request whose text was not kept (`store_text = false`)."""

    schema_hash: str
    dense: tuple[Finite, ...]
    ids: tuple[int, ...]
    counts: tuple[Finite, ...]


class Interaction(_Record):
    """A request with everything that happened to it: the unit of the log."""

    schema_: Literal["router_ml.interaction/1"] = Field("router_ml.interaction/1", alias="schema")
    id: str = Field(min_length=1)
    ts: Utc
    session_id: str | None = None
    tenant: str | None = None
    feature: str | None = None
    use_case: str | None = None
    tags: dict[str, JsonValue] = Field(default_factory=dict)
    request: RequestBody = Field(default_factory=RequestBody)
    features: StoredFeatures | None = None
    policy_version: str | None = None
    candidates: tuple[str, ...] = ()
    propensity: dict[str, Unit] = Field(default_factory=dict)
    explored: bool = False
    mode: Mode = "live"
    attempts: tuple[Attempt, ...] = ()
    feedback: tuple[Feedback, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_unknown_fields(cls, data: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:  # raw JSON
        # Looking for unknown fields costs more than all the rest, and most rows have none: only on their error.
        try:
            return validate(data)
        except ValidationError as error:
            if not isinstance(data, dict) or all(item["type"] != "extra_forbidden" for item in error.errors()):
                raise
        return validate(_move_unknown_to_tags(data))

    @model_validator(mode="after")
    def _propensities_are_a_distribution(self) -> Self:
        total = sum(self.propensity.values())
        if self.propensity and not 0.999 <= total <= 1.001:
            message = f"propensity: the probabilities of the tiers sum to {total:.4f}, expected 1"
            raise ValueError(message)
        return self

    @property
    def is_golden(self) -> bool:
        """Whether this is an item of a golden set: chosen by somebody, asked again and again, no sample of traffic."""
        return self.mode == "audit" and GOLDEN in self.tags and self.id.startswith(f"{GOLDEN}-")

    def to_request(self) -> Request:
        """Return the view of this interaction that the router would have seen."""
        return Request(
            messages=self.request.messages,
            tools=self.request.tools,
            response_format=self.request.response_format,
            max_tokens=self.request.max_tokens,
            tenant=self.tenant,
            feature=self.feature,
            use_case=self.use_case,
            session_id=self.session_id,
        )

    def to_json(self) -> str:
        """Return this interaction as one line of JSON."""
        return self.model_dump_json(by_alias=True)


# Which record each nested field holds, so that unknown fields are found at every depth.
_NESTED: dict[type[BaseModel], dict[str, type[BaseModel]]] = {
    Interaction: {"request": RequestBody, "attempts": Attempt, "feedback": Feedback},
    Attempt: {"verdicts": Verdict},
}


def _move_unknown_to_tags(data: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    kept = _strip(data, Interaction, "", found)
    if not found:
        return data
    tags = kept.get("tags", {})
    # Tags that are no mapping stay as they are, for the error message they deserve.
    return {**kept, "tags": {**found, **tags}} if isinstance(tags, dict) else kept


def _strip(data: dict[str, Any], record: type[BaseModel], path: str, found: dict[str, Any]) -> dict[str, Any]:
    names = {info.alias or name for name, info in record.model_fields.items()} | set(record.model_fields)
    nested = _NESTED.get(record, {})
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if key not in names:
            found[f"{path}{key}"] = value
        elif key in nested and isinstance(value, dict):
            kept[key] = _strip(value, nested[key], f"{path}{key}.", found)
        elif key in nested and isinstance(value, list | tuple):
            kept[key] = [
                _strip(item, nested[key], f"{path}{key}.{i}.", found) if isinstance(item, dict) else item
                for i, item in enumerate(value)
            ]
        else:
            kept[key] = value
    return kept


def parse_interaction(data: str | bytes | Mapping[str, Any]) -> Interaction:
    """Read one interaction from a line of JSON or from a mapping.

    Raises:
        RecordError: When it cannot be read; the message lists every mistake with its field.
    """
    try:
        if isinstance(data, str | bytes):
            return Interaction.model_validate_json(data)
        return Interaction.model_validate(data)
    except ValidationError as error:
        raise RecordError("; ".join(_explain(item) for item in error.errors())) from error


def _explain(item: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "row"
    if where == "schema":
        return f"schema: got {item['input']!r}, this release reads '{SCHEMA}'"
    if item["type"] == "json_invalid":
        return f"not valid JSON ({item['ctx']['error']})"
    if item["type"] == "missing":
        return f"{where}: missing"
    got = repr(item["input"])
    return f"{where}: {item['msg']}, got {got if len(got) <= 60 else got[:57] + '...'}"
