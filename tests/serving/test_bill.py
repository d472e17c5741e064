"""The record of one call: what was billed, estimated, or cost nothing."""

from __future__ import annotations

import pytest

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml.schema import Answer, Request
from router_ml_serving.bill import CANCELLED, attempt_of, further_bytes
from router_ml_serving.wire import Usage

TIER = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
REQUEST = Request(messages=[{"role": "user", "content": "x" * 400}])
TIMES = {"started_s": 10.0, "ended_s": 10.5}


def test_what_the_upstream_counted_is_the_bill() -> None:
    found = attempt_of(TIER, REQUEST, Answer("yes", "stop"), Usage(100, 20), first_byte_s=10.2, **TIMES)
    assert (found.tier, found.model, found.input_tokens, found.output_tokens) == ("small", "mini", 100, 20)
    assert found.cost_usd == pytest.approx(140e-6)
    assert (found.ttft_ms, found.latency_ms) == (pytest.approx(200.0), pytest.approx(500.0))
    assert (found.response, found.error) == ("yes", None)


def test_what_nobody_counted_is_estimated() -> None:
    found = attempt_of(TIER, REQUEST, Answer("12345678", "stop"), None, further_bytes=4, **TIMES)
    assert found.input_tokens == 104
    assert found.output_tokens == 3
    assert found.cost_usd == pytest.approx(110e-6)


@pytest.mark.parametrize(
    ("kind", "billed"), [("status", False), ("connect", False), ("open", False), ("timeout", True)]
)
def test_a_call_that_was_worked_on_is_billed(kind: str, billed: bool) -> None:
    error = UpstreamError("no", kind=kind)
    found = attempt_of(TIER, REQUEST, Answer("", None), None, error=error, **TIMES)
    assert (found.cost_usd > 0.0) is billed
    assert (found.error, found.response) == (kind, None)


def test_a_status_is_part_of_the_error_and_a_cancelled_call_one() -> None:
    error = UpstreamError("no", kind="status", status=503)
    assert attempt_of(TIER, REQUEST, Answer("", None), None, error=error, **TIMES).error == "status 503"
    assert attempt_of(TIER, REQUEST, Answer("ha", CANCELLED), None, **TIMES).error == CANCELLED


def test_further_choices_are_counted() -> None:
    choices = [{"message": {"content": text}} for text in ("first", "four", "sixsix")]
    assert further_bytes({"choices": [*choices, "odd"]}) == 10
