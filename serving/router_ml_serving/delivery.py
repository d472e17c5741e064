"""How a streamed answer reaches the client: straight through, or held until it is judged."""

from __future__ import annotations

from typing import Literal, TypeAlias

from router_ml.schema import Decision
from router_ml_serving.wire import Chat

__all__ = ["delivery_of"]

Delivery: TypeAlias = Literal["hold", "through"]


def delivery_of(decision: Decision, chat: Chat, stream_adequacy: float) -> Delivery:
    """Say how the stream that follows from a decision is delivered.

    | | |
    |---|---|
    | nobody stands by for a poor answer | through: judging it could change nothing |
    | the request has tools | hold, whatever the budget: a tool call that went out has its effects |
    | judging the answer is part of the plan | hold: the plan was tuned and certified with that judgement |
    | adequate with `stream_adequacy` or more | through |
    | the budgets leave time to hold it and to ask the next tier | hold |
    | they do not | through |

    The third way, straight to the larger tier, is no delivery but a decision: where there is no time to hold, the
    router itself leaves out plans that would have to, before anything is drawn, so that propensities stay exact.

    Args:
        decision: The decision; its `may_hold` compares what the attempts usually take with the use case's budgets.
        chat: The request.
        stream_adequacy: Adequacy from which on an answer may pass unjudged.
    """
    if decision.plan.escalate_to is None:
        return "through"
    if decision.judged or _may_act(chat):
        return "hold"
    if decision.adequacy[decision.tier] >= stream_adequacy or not decision.may_hold:
        return "through"
    return "hold"


def _may_act(chat: Chat) -> bool:
    # `functions` is what tools were called before; "none" forbids calls.
    body = chat.body
    if body.get("tools"):
        return body.get("tool_choice") != "none"
    return bool(body.get("functions")) and body.get("function_call") != "none"
