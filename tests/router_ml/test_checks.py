"""Response checks as tables of accepted and refused answers."""

# ruff: noqa: RUF001 - other languages use other characters

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_ml.checks import CHECKS, dont_know, refusal, run_checks
from router_ml.schema import Answer, Request

ASKED = Request(messages=[{"role": "user", "content": "hello"}])
GOOD = "Paris has been the capital of France since 987, with short interruptions."


def said(text: str, **fields: Any) -> Answer:
    return Answer(text=text, finish_reason=fields.pop("finish_reason", "stop"), **fields)


def called(arguments: Any, name: str | None = "search") -> Answer:
    return said("", tool_calls=[{"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}])


@pytest.mark.parametrize("name", list(CHECKS))
def test_every_check_has_nothing_to_say_about_a_good_answer(name: str) -> None:
    assert CHECKS.load(name)(ASKED, said(GOOD)) is None


@pytest.mark.parametrize("name", list(CHECKS))
@given(text=st.text(max_size=300), finish=st.sampled_from(["stop", "length", None, "content_filter"]))
def test_every_check_takes_any_text(name: str, text: str, finish: str | None) -> None:
    reason = CHECKS.load(name)(ASKED, Answer(text=text, finish_reason=finish))
    assert reason is None or reason.strip()


def test_the_first_check_that_fires_gives_the_reason_with_its_name() -> None:
    assert run_checks(ASKED, said("  \n")) == "empty: the answer is empty"
    assert run_checks(ASKED, said(GOOD)) is None


def test_a_tool_call_without_text_is_an_answer() -> None:
    assert run_checks(ASKED, called("{}")) is None


@pytest.mark.parametrize(("finish", "fires"), [("length", True), ("stop", False), (None, False), ("tool_calls", False)])
def test_only_the_length_limit_truncates(finish: str | None, fires: bool) -> None:
    found = run_checks(Request(messages=[], max_tokens=9), said(GOOD, finish_reason=finish))
    assert found == ("truncated: the answer was cut off at the length limit of 9 tokens" if fires else None)


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, I can’t assist with that request.",
    "Sorry, I cannot provide medical advice.",
    "**I'm unable to answer this question.** Please consult an expert.",
    "I cannot fulfill this request. It goes against my guidelines.",
    "As an AI language model, I don't have personal opinions on politics.",
    "I must respectfully decline.",
    "Thank you for your question. Unfortunately, I won't be able to help with this one.",
    "I'm not able to share that information.",
    "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.",
    "Diese Frage kann ich leider nicht beantworten.",
    "Ich bin nicht in der Lage, diese Anfrage zu bearbeiten.",
    "Als KI-Modell kann ich dazu keine Auskunft geben.",
    "Je suis désolé, mais je ne peux pas vous aider avec cela.",
    "Malheureusement, je ne suis pas en mesure de répondre à cette question.",
    "En tant qu'IA, je ne peux pas exprimer d'opinion.",
    "Lo siento, pero no puedo ayudarte con eso.",
    "Lo siento, no puedo proporcionar esa información.",
    "Como modelo de lenguaje, no puedo opinar sobre ese tema.",
    "Desculpe, mas não posso ajudar com isso.",
    "Sinto muito, não consigo fornecer essas informações.",
    "Como uma IA, não posso emitir opiniões.",
    "Mi dispiace, ma non posso aiutarti con questa richiesta.",
    "Purtroppo non sono in grado di rispondere a questa domanda.",
    "抱歉，我无法提供这方面的帮助。",
    "对不起，我不能回答这个问题。",
    "作为一个人工智能，我无法对此发表意见。",
    "很抱歉，我無法協助您處理這個請求。",
    "申し訳ありませんが、そのリクエストにはお応えできません。",
    "申し訳ございませんが、その情報を提供することはできません。",
    "恐れ入りますが、お手伝いできかねます。",
]

IGNORANCE = [
    "I don't know.",
    "I'm sorry, I do not know the answer to that.",
    "I’m not sure.",
    "I have no idea what that could mean.",
    "I don't have enough information to answer that.",
    "Unfortunately I couldn't find anything about this order.",
    "Das weiß ich leider nicht.",
    "Keine Ahnung.",
    "Dazu habe ich leider keine Informationen.",
    "Ich bin mir nicht sicher.",
    "Je ne sais pas.",
    "Désolé, je n'ai pas assez d'informations pour répondre.",
    "No lo sé.",
    "Lo siento, no tengo suficiente información.",
    "Não sei responder a isso.",
    "Não tenho certeza.",
    "Non lo so.",
    "Mi dispiace, non ho abbastanza informazioni.",
    "我不知道。",
    "抱歉，我不太清楚这个问题的答案。",
    "我没有足够的信息。",
    "わかりません。",
    "申し訳ありませんが、分かりかねます。",
    "その件については存じ上げません。",
]

LONG = (
    "First gather the figures for each quarter, then compare them with last year's. The difference tells you how "
    "demand has moved, and its sign tells you in which direction to correct the plan. "
) * 4

FINE = [
    GOOD,
    f"I don't know the exact figure, but it can be estimated. {LONG}",
    f"I can't provide legal advice, but in general this is how it works. {LONG}",
    f"{LONG} If the customer insists, answer: I'm sorry, but I can't help with that.",
    'The phrase "I can\'t help with that" is a polite refusal.',
    "Translation: I don't know.",
    "„Ich weiß es nicht“ heißt auf Englisch: I don't know.",
    "Dear Tom,\n\nthank you for the invitation. I'm not sure I can come on Friday, but Saturday works.",
    "I can't help but admire how short this proof is: assume the contrary and count.",
    "I can help with that! Press the reset button for five seconds.",
    "Ja, dabei kann ich Ihnen gern helfen: Öffnen Sie die Einstellungen.",
    "Vous ne pouvez pas annuler après 14 jours.",
    "No puedes devolver el producto después de 30 días.",
    "Você não pode cancelar depois de 30 dias.",
    "Non può restituire il prodotto dopo 30 giorni.",
    "您可能不知道，巴黎自987年以来一直是法国的首都。",
    "『わかりません』は英語で I don't know と言います。",
    "返品は30日以内にお願いいたします。",
    "The answer is 42.",
    "yes",
    "unknown_user",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_found(text: str) -> None:
    assert CHECKS.load("refusal")(ASKED, said(text)) == "the answer is a refusal"


@pytest.mark.parametrize("text", IGNORANCE)
def test_not_knowing_is_found(text: str) -> None:
    assert CHECKS.load("dont_know")(ASKED, said(text)) == "the answer says that it does not know"


@pytest.mark.parametrize("text", FINE)
def test_an_answer_that_only_resembles_a_refusal_passes(text: str) -> None:
    assert run_checks(ASKED, said(text)) is None


LANGUAGES = ("_ENGLISH", "_GERMAN", "_FRENCH", "_SPANISH", "_PORTUGUESE", "_ITALIAN", "_CHINESE", "_JAPANESE")
# What `from_regex` may fill the gaps of a pattern with: every letter that one asks for, and a few others.
LETTERS = sorted(
    set("abc xyz .,:'-\n").union(
        *(pattern for check in (refusal, dont_know) for name in LANGUAGES for pattern in getattr(check, name))
    )
)


@pytest.mark.parametrize(
    ("pattern", "signs"),
    [
        pytest.param(pattern, language.signs, id=f"{check.__name__.rpartition('.')[2]}{name.lower()}{i}")
        for check, languages in ((refusal, refusal._REFUSAL), (dont_know, dont_know._DONT_KNOW))
        for name, language in zip(LANGUAGES, languages, strict=True)
        for i, pattern in enumerate(getattr(check, name))
        if "[^" not in pattern  # gaps of anything but a full stop take minutes to draw; the tables above have those
    ],
)
# Most gaps are filled with what a pattern forbids there, and drawn again.
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data())
def test_every_phrase_carries_one_of_its_signs(pattern: str, signs: tuple[str, ...], data: st.DataObject) -> None:
    found = re.search(pattern, data.draw(st.from_regex(pattern, alphabet=st.sampled_from(LETTERS))))
    assert found is None or any(sign in found.group() for sign in signs)


def test_a_very_long_answer_is_not_searched() -> None:
    assert run_checks(ASKED, said("I don't know. " * 200_000)) is None


OBJECT = Request(messages=[], response_format={"type": "json_object"})


def schema(**fields: Any) -> Request:
    return Request(messages=[], response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": fields}})


PERSON = schema(
    type="object",
    required=["name", "age"],
    properties={"name": {"type": "string"}, "age": {"type": ["integer", "null"]}, "ok": {"type": "boolean"}},
)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ASKED, "not json at all"),
        (Request(messages=[], response_format={"type": "text"}), "not json at all"),
        (OBJECT, '{"a": 1}'),
        (OBJECT, ' {"a": [1, 2]}\n'),
        (PERSON, '{"name": "Ann", "age": 3}'),
        (PERSON, '{"name": "Ann", "age": null, "ok": true, "more": 1}'),
        (PERSON, '{"name": "Ann", "age": 3.0}'),
        (schema(type="array"), "[]"),
        (schema(), "1"),
        (schema(type="unheard-of"), "1"),
        (schema(type=7, required="name", properties=[]), "{}"),
        (schema(type="object", required=[["a"]], properties={"a": True}), '{"a": 1}'),
        (Request(messages=[], response_format={"type": "json_schema"}), "{}"),
    ],
)
def test_json_that_keeps_the_format_passes(request_: Request, text: str) -> None:
    assert CHECKS.load("json_valid")(request_, said(text)) is None


@pytest.mark.parametrize(
    ("request_", "text", "reason"),
    [
        (OBJECT, "Sure! Here it is: {}", "does not parse"),
        (OBJECT, "```json\n{}\n```", "does not parse"),
        (OBJECT, '{"a": 1', "does not parse"),
        (OBJECT, "[" * 100_000, "does not parse"),
        (OBJECT, "[1]", "another value"),
        (PERSON, "[]", "type object"),
        (PERSON, '{"name": "Ann"}', "lacks age"),
        (PERSON, '{"name": 3, "age": 3}', "'name' is not of the type string"),
        (PERSON, '{"name": "Ann", "age": "3"}', "'age' is not of the type integer or null"),
        (PERSON, '{"name": "Ann", "age": true}', "'age' is not of the type integer or null"),
        (PERSON, '{"name": "Ann", "age": 3.5}', "'age' is not"),
    ],
)
def test_json_that_breaks_the_format_is_found(request_: Request, text: str, reason: str) -> None:
    assert reason in (CHECKS.load("json_valid")(request_, said(text)) or "")


SEARCH = {
    "type": "function",
    "function": {"name": "search", "parameters": {"type": "object", "required": ["query"], "properties": {}}},
}
TOOLS = Request(messages=[], tools=[SEARCH])


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (TOOLS, said(GOOD)),
        (TOOLS, called('{"query": "x"}')),
        (TOOLS, called({"query": "x"})),
        (Request(messages=[], tools=[{"type": "function", "function": {"name": "search"}}]), called("")),
        (Request(messages=[], tools=[{"name": "search"}]), said("", tool_calls=[{"name": "search"}])),
        (ASKED, called('{"query": "x"}')),
    ],
)
def test_a_sound_tool_call_passes(request_: Request, answer: Answer) -> None:
    assert run_checks(request_, answer) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (called('{"query": '), "are not valid JSON"),
        (called("[]"), "are not a JSON object"),
        (called(json.dumps({"q": "x"})), "lack query"),
        (called("{}", name="delete"), "'delete', a tool that was not offered"),
        (called("{}", name=None), "has no name"),
    ],
)
def test_a_broken_tool_call_is_found(answer: Answer, reason: str) -> None:
    assert reason in (run_checks(TOOLS, answer) or "")
