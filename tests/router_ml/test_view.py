"""What the blocks look at: roles, turns and parts are counted, long input is cut, sizes are bounded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from router_ml.features.scan import MAX_CHARS
from router_ml.features.view import estimate_input_tokens, text_of, view_of
from router_ml.schema import Request


def request(*messages: Mapping[str, Any], **fields: Any) -> Request:
    return Request(messages=messages, **fields)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("hello", "hello"),
        ("", ""),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "a\nb"),
        ([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}], "a"),
        (["plain", {"text": "part"}], "plain\npart"),
        ([{"type": "text", "text": None}, {"type": "text"}, 7, None], ""),
        ({"text": "not a list"}, ""),
        (3.5, ""),
        (b"bytes", ""),
    ],
)
def test_the_text_of_any_content(content: object, text: str) -> None:
    assert text_of(content) == text


def test_roles_are_counted_under_four_names() -> None:
    roles = ["system", "developer", "user", "assistant", "tool", "function", "critic", None]
    view = view_of(request(*({"role": role, "content": "xx"} for role in roles)))
    assert view.turns == {"system": 2, "user": 3, "assistant": 1, "tool": 2}
    assert view.chars == {"system": 4, "user": 6, "assistant": 2, "tool": 4}


def test_parts_are_counted_by_kind() -> None:
    content = [{"type": "image_url"}, {"type": "input_audio"}, {"type": "file"}, {"type": "text", "text": "a"}, {}]
    view = view_of(request(user(content), user([{"type": "input_image"}])))
    assert view.parts == {"image": 2, "audio": 1, "file": 1}


def test_the_last_user_turn_is_what_is_asked() -> None:
    long = "tell me everything there is to know about the history of the printing press, in order, please"
    view = view_of(request(user("earlier"), {"role": "assistant", "content": "an answer"}, user(long)))
    assert view.asked == long
    assert view.last_chars == len(long)


def test_a_short_last_turn_is_read_with_the_turns_before_it() -> None:
    view = view_of(request(user("how do I bake bread"), {"role": "assistant", "content": "so"}, user("and rye?")))
    assert view.asked == "how do I bake bread\nand rye?"
    assert view.last_chars == 8


def test_of_a_long_text_head_and_tail_are_kept() -> None:
    view = view_of(request(user("He" + " ab" * 6666 + " T")))
    assert len(view.asked) == MAX_CHARS
    assert (view.asked[0], view.asked[-1]) == ("H", "T")
    assert view.chars["user"] == 20_002
    assert view.user_chars == view.last_chars == pytest.approx(20_002, abs=2)


@pytest.mark.parametrize("padding", [" " * 5000, "\n \t" * 1500, "\u200b" * 5000, "?" * 5000, "?!." * 1500])
def test_padding_pushes_no_word_out_and_has_no_length(padding: str) -> None:
    view = view_of(request(user(f"the first word{padding} and the last one")))
    assert view.asked.startswith("the first word")
    assert view.asked.endswith("and the last one")
    assert view.user_chars == view.last_chars == len(view.asked) < 50
    assert view.chars["user"] > 4000


def test_of_a_very_long_text_head_and_tail_are_made_canonical() -> None:
    text = f"H{' ' * 3000}e {'ab ' * 20_000}t{' ' * 2000}T"
    view = view_of(request(user(text)))
    assert view.asked.startswith("H e ab")
    assert view.asked.endswith("ab t T")
    assert len(view.asked) == MAX_CHARS
    assert view.user_chars == pytest.approx(len(text) - 2999 - 1999, abs=2)


def test_joiners_between_all_letters_of_a_long_text_change_nothing() -> None:
    text = " ".join(f"word{i}" for i in range(2000))
    plain, joined = view_of(request(user(text))), view_of(request(user("\u200d".join(text))))
    assert (joined.asked, joined.user_chars, joined.input_tokens) == (plain.asked, plain.user_chars, plain.input_tokens)


def test_padding_makes_no_follow_up_a_question_of_its_own() -> None:
    view = view_of(request(user("how do I bake bread"), user("and" + "\u200d" * 300 + " rye?")))
    assert view.asked == "how do I bake bread\nand rye?"
    assert view.last_chars == 8


def test_invisible_characters_around_white_space_are_no_text() -> None:
    text = " ".join(f"word{i}" for i in range(500))
    padding = " " * 9000
    assert view_of(request(user(f"\u200b{padding}{text}{padding}\u200b"))).asked == text


def test_of_turns_that_are_padding_alone_a_bounded_number_is_read() -> None:
    padding = [user("…" * 12_000)] * 20
    assert view_of(request(user("the question"), *padding)).asked == "\n".join(["..."] * 5)
    assert view_of(request(user("the question"), *padding[:2])).asked == "the question\n...\n..."


def test_what_was_sent_is_estimated_as_it_was_and_as_it_is_read() -> None:
    words = "ab " * 100
    plain, padded = view_of(request(user(words[:-1]))), view_of(request(user(words + " " * 700)))
    assert plain.sent_tokens == plain.input_tokens == padded.input_tokens == 299 / 4 + 4
    assert estimate_input_tokens(padded) == padded.sent_tokens == 1000 / 4 + 4
    wide = "".join(chr(ord(char) + 0xFEE0) if char.isalpha() else char for char in words[:-1])
    found = view_of(request(user(wide)))
    assert (found.sent_tokens, found.input_tokens) == (299 / 2.5 + 4, 299 / 4 + 4)
    beside_others = view_of(request({"role": "assistant", "content": "é"}, user(wide)))
    assert beside_others.input_tokens == 300 / 2.5 + 8


def test_the_first_system_prompt_names_the_template() -> None:
    view = view_of(request({"role": "system", "content": "first"}, {"role": "system", "content": "second"}, user("hi")))
    assert view.system == "first"


def test_no_messages_ask_nothing() -> None:
    view = view_of(request())
    assert (view.asked, view.system, view.last_chars, len(view.scan.words)) == ("", "", 0, 0)
    assert estimate_input_tokens(view) == 0.0


def test_the_size_of_tools_is_about_that_of_their_json() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "required": ["a", "b"]}}}
    view = view_of(request(user("hi"), tools=[tool], response_format={"type": "json_object"}))
    assert 90 <= view.tool_chars <= 130
    assert 20 <= view.schema_chars <= 30


def test_a_tool_nested_beyond_reason_is_measured_and_does_not_exhaust_the_stack() -> None:
    nested: dict[str, Any] = {}
    for _ in range(5_000):
        nested = {"items": nested}
    assert view_of(request(user("hi"), tools=[nested])).tool_chars > 0


def test_tokens_are_estimated_from_characters_frames_and_images() -> None:
    assert estimate_input_tokens(view_of(request(user("x" * 400)))) == 400 / 4 + 4
    assert estimate_input_tokens(view_of(request(user("é" * 400)))) == 400 / 2.5 + 4
    picture = [{"type": "image_url", "image_url": {"url": "u"}}]
    assert estimate_input_tokens(view_of(request(user(picture)))) == 804
