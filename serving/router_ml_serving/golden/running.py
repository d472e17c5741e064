"""One run of a golden set: every tier is asked every item within a budget; answers are checked, and may be judged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from router_ml.errors import UpstreamError
from router_ml.features.view import estimate_input_tokens, view_of
from router_ml.ladder import Tier
from router_ml.schema import Answer, Attempt, Request, Verdict
from router_ml_serving.bill import attempt_of, further_bytes
from router_ml_serving.golden.checks import failed_checks
from router_ml_serving.golden.items import GoldenItem
from router_ml_serving.golden.judge import JUDGE_TOKENS, judge_body, verdict_of
from router_ml_serving.golden.purse import Purse
from router_ml_serving.upstream import Upstream
from router_ml_serving.wire import answer_of, outgoing, read_chat, usage_of

__all__ = ["Asking", "ItemResult", "most_usd", "run_items"]


@dataclass(frozen=True, slots=True)
class Asking:
    """Who is asked, and how.

    `judge` None: nobody judges. Answers have at most `max_tokens`, unless an item says otherwise. `clock` counts
    seconds.
    """

    tiers: tuple[Tier, ...]
    judge: Tier | None
    upstream: Upstream
    max_tokens: int
    concurrency: int
    clock: Callable[[], float]


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What came of one item: an attempt per tier, with its verdicts, and what judging them cost."""

    item: GoldenItem
    attempts: tuple[Attempt, ...]
    judge_usd: float


@dataclass(slots=True)
class _Judging:
    # What judging one item has cost so far.
    usd: float = 0.0


async def run_items(
    items: Sequence[GoldenItem],
    asking: Asking,
    purse: Purse,
    record: Callable[[ItemResult], None],
    *,
    slot: str,
) -> list[GoldenItem]:
    """Ask every tier every item.

    The order is another one in every slot, so that a budget that is too small leaves out others every time.

    Args:
        items: What is asked.
        asking: Who is asked.
        purse: An item whose calls may cost more than is left, once nothing is under way, is left out.
        record: Called once per item when all its calls are over.
        slot: Name of the run, such as its date.

    Returns:
        The items that were left out.
    """
    left_out: list[GoldenItem] = []
    pending: set[asyncio.Task[None]] = set()
    try:
        for item in sorted(items, key=lambda one: hashlib.sha256(f"{slot} {one.digest}".encode()).digest()):
            usd = most_usd(item, asking)
            while pending and (len(pending) >= asking.concurrency or not purse.fits(usd)):
                pending = await _after_one(pending)
            if not purse.fits(usd):
                left_out.append(item)
                continue
            purse.set_aside(usd)
            pending.add(asyncio.create_task(_run_item(item, asking, purse, usd, record)))
        while pending:
            pending = await _after_one(pending)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return left_out


def most_usd(item: GoldenItem, asking: Asking) -> float:
    """Return what an item costs at most by the ladder's prices: prompts as estimated, answers of full length."""
    request = item.chat.request
    most_tokens = _most_tokens(request, asking)
    given = estimate_input_tokens(view_of(request))
    usd = sum(tier.cost_usd(round(given), most_tokens) for tier in asking.tiers)
    if item.judge and asking.judge is not None:
        told = read_chat(judge_body(item, Answer("", None), asking.judge)).request
        told_tokens = round(estimate_input_tokens(view_of(told))) + most_tokens
        usd += len(asking.tiers) * asking.judge.cost_usd(told_tokens, JUDGE_TOKENS)
    return usd


async def _after_one(pending: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return pending


async def _run_item(
    item: GoldenItem, asking: Asking, purse: Purse, usd: float, record: Callable[[ItemResult], None]
) -> None:
    judging, attempts = _Judging(), []
    try:
        for tier in asking.tiers:
            attempts.append(await _attempt(item, tier, asking, judging))  # noqa: PERF401  what was paid before a failure
    finally:
        purse.settle(usd, sum(one.cost_usd or 0.0 for one in attempts) + judging.usd)
    record(ItemResult(item, tuple(attempts), judging.usd))


async def _attempt(item: GoldenItem, tier: Tier, asking: Asking, judging: _Judging) -> Attempt:
    body: dict[str, Any] = dict(item.request)  # Any: JSON of the wire
    if item.chat.request.max_tokens is None:
        body["max_completion_tokens"] = asking.max_tokens
    answer, attempt = await _call(tier, body, item.chat.request, asking)
    if answer is None:
        return attempt
    verdict = await _verdict(item, answer, asking, judging)
    return attempt if verdict is None else attempt.model_copy(update={"verdicts": (verdict,)})


async def _call(tier: Tier, body: dict[str, Any], request: Request, asking: Asking) -> tuple[Answer | None, Attempt]:
    """Return a tier's answer and its record; no answer where it failed, which is no evidence."""
    started_s, usage, answer, said = asking.clock(), None, Answer("", None), 0
    error: UpstreamError | None = None
    try:
        parsed = (await asking.upstream.complete(tier, outgoing(body, tier, whole=True))).parsed
        usage = usage_of(parsed)
        answer = answer_of(parsed)
        said = further_bytes(parsed)
    except UpstreamError as failure:
        error = failure
    times = {"started_s": started_s, "ended_s": asking.clock()}
    attempt = attempt_of(tier, request, answer, usage, error=error, further_bytes=said, **times)
    return (None if error else answer), attempt


async def _verdict(item: GoldenItem, answer: Answer, asking: Asking, judging: _Judging) -> Verdict | None:
    # Checks are necessary; they are the whole verdict only where nobody judges.
    failed = failed_checks(item.checks, answer)
    if failed:
        return Verdict(adequate=False, source="check", reason=f"failed: {', '.join(failed)}")
    if not item.judge:
        return Verdict(adequate=True, source="check")
    if asking.judge is None:
        return None
    body = judge_body(item, answer, asking.judge)
    said, attempt = await _call(asking.judge, body, read_chat(body).request, asking)
    judging.usd += attempt.cost_usd or 0.0
    return None if said is None else verdict_of(said.text)


def _most_tokens(request: Request, asking: Asking) -> int:
    return asking.max_tokens if request.max_tokens is None else request.max_tokens
