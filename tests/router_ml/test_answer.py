"""Answer features: bounded, deterministic, finite or NaN for any text; and what single columns say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.features.answer import (
    ANSWER_NAMES,
    N_ANSWER_BUCKETS,
    N_ANSWER_TEXT_BUCKETS,
    AnswerFeatures,
    answer_from_stored,
    answer_of_attempt,
    answer_to_stored,
    featurize_answer,
    with_expected_tokens,
)
from router_ml.features.answer_view import numbers_of
from router_ml.features.view import view_of
from router_ml.schema import Answer, Attempt, LogProbs, Request

texts = st.text(st.characters(codec=None), max_size=400)


def ask(text: str, **parts: object) -> Request:
    return Request(messages=({"role": "user", "content": text},), **parts)  # type: ignore[arg-type]


def column(name: str, request: Request, answer: Answer | str, **options: float) -> float:
    said = Answer(answer, "stop") if isinstance(answer, str) else answer
    return float(featurize_answer(request, said, **options).dense[ANSWER_NAMES.index(name)])


def same(a: AnswerFeatures, b: AnswerFeatures) -> bool:
    return (
        a.dense.tobytes() == b.dense.tobytes() and np.array_equal(a.ids, b.ids) and np.array_equal(a.counts, b.counts)
    )


@settings(max_examples=150, deadline=None)
@given(texts, texts, st.none() | st.integers(0, 10**9), st.sampled_from([None, "stop", "length", "odd"]))
def test_any_answer_has_features_within_bounds(asked: str, said: str, tokens: int | None, finish: str | None) -> None:
    answer = Answer(said, finish, output_tokens=tokens)
    found = featurize_answer(ask(asked, use_case="chat"), answer, expected_tokens=100.0)
    assert found.dense.shape == (len(ANSWER_NAMES),)
    assert found.dense.dtype == np.float32
    known = found.dense[~np.isnan(found.dense)]
    assert np.isfinite(known).all()
    assert np.abs(known).max() <= 1e6
    assert len(found.ids) == len(found.counts)
    assert (np.diff(found.ids) > 0).all()
    assert ((found.ids >= 0) & (found.ids < N_ANSWER_BUCKETS)).all()
    assert same(found, featurize_answer(ask(asked, use_case="chat"), answer, expected_tokens=100.0))


@pytest.mark.parametrize("piece", ["1+1=3 ", "((((", "9", "**A** ", "=", "答案是", "answer is answer ", "\n- x", "{"])
def test_a_huge_answer_is_cut_and_still_has_features(piece: str) -> None:
    found = featurize_answer(ask("how many? " * 5000), Answer(piece * 200_000, "length"))
    assert len(found.ids) < 12_000
    assert not np.isinf(found.dense).any()


def test_a_request_that_was_read_before_gives_the_same_features() -> None:
    request = ask("How much is 3 + 4?", use_case="maths")
    answer = Answer("3 + 4 = 7", "stop", output_tokens=5)
    assert same(featurize_answer(request, answer), featurize_answer(request, answer, asked=view_of(request)))


def test_logged_features_come_back_as_they_were() -> None:
    features = featurize_answer(ask("Say hello"), Answer("Hello there", None))
    stored = answer_to_stored(features)
    back = answer_from_stored(type(stored).model_validate_json(stored.model_dump_json()))
    assert back is not None
    assert same(features, back)


@pytest.mark.parametrize("fault", [{"schema_hash": "other"}, {"dense": (1.0,)}, {"ids": (5, 5)}, {"ids": (-1, 2)}])
def test_logged_features_of_another_release_are_left_out(fault: dict[str, object]) -> None:
    stored = answer_to_stored(featurize_answer(ask("Say"), Answer("Hello there", None)))
    assert answer_from_stored(stored.model_copy(update={"counts": (1.0, 1.0), "ids": (1, 2), **fault})) is None


def test_an_attempt_without_text_is_an_empty_answer() -> None:
    logprobs = LogProbs(-0.5, -3.0, 0.25)
    attempt = Attempt(tier="small", output_tokens=7, finish_reason="stop", logprobs=logprobs)
    assert answer_of_attempt(attempt) == Answer("", "stop", (), 7, logprobs)


def test_the_length_is_set_against_what_was_expected() -> None:
    answer = Answer("x" * 50, "stop", output_tokens=99)
    assert column("form.log_tokens_over_expected", ask("a"), answer, expected_tokens=50.0) == pytest.approx(np.log(2))
    assert np.isnan(column("form.log_tokens_over_expected", ask("a"), answer))
    unknown = featurize_answer(ask("a"), answer).dense[None]
    filled = with_expected_tokens(unknown, np.array([50.0]))
    assert filled[0, ANSWER_NAMES.index("form.log_tokens_over_expected")] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("words.hedge_cues", "It is perhaps 12."),
        ("words.hedge_cues", "Das ist vermutlich richtig."),
        ("words.hedge_cues", "C'est peut-être vrai."),
        ("words.hedge_cues", "Tal vez sea así."),
        ("words.hedge_cues", "可能是这样。"),
        ("words.unsure_cues", "This is impossible to say."),
        ("words.second_thoughts_cues", "Wait, that is wrong."),
        ("words.no_fit_cues", "None of the options fits; the closest is B."),
        ("words.conclusion_cues", "Donc il reste trois."),
        ("check_refusal", "I'm sorry, but I can't help with that."),
        ("check_dont_know", "Das weiß ich leider nicht."),
        ("check_empty", " "),
    ],
)
def test_phrases_are_found_in_several_languages(name: str, text: str) -> None:
    name = f"form.{name}" if name.startswith("check") else name
    assert column(name, ask("What now?"), text) > 0
    assert column(name, ask("What now?"), "Here you are.") == 0


def test_another_language_or_script_than_the_question_shows() -> None:
    german = ask("Was ist die Hauptstadt von Frankreich und wie viele Leute sind das mit den Vororten?")
    english, reply = (
        "It is the city of Paris and that is in France.",
        "Das ist die Stadt Paris mit den Vororten und so.",
    )
    assert column("words.other_language", german, english) > column("words.other_language", german, reply) + 0.3
    assert column("words.other_script", german, "巴黎是法国的首都") > 0.9
    assert column("words.other_script", german, reply) < 0.1


def test_names_and_numbers_that_nobody_mentioned_are_counted() -> None:
    request = ask("Ann has 12 apples and gives 5 to Bob. How many are left?")
    assert column("words.log_names", request, "So Ann and also Peter have 7.") > 0
    assert column("words.new_names", request, "so that Ann and then Peter have 7.") == pytest.approx(np.log(2))
    assert column("numbers.new_numbers", request, "12 - 5 = 7, but 31 is left.") == 1
    assert column("numbers.unused_given", request, "She has 12.") == 1


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("4 + 20 + 7 + 8 = 39", 0),
        ("4 + 20 + 7 + 8 = 49", 1),
        ("12 eggs * 2 = 24 eggs", 0),
        ("3 * (4 + 5) = 27 and 27 - 7 = 21", 1),
        ("10 / 3 = 3.33", 0),
        ("5/20 = 25%", 0),
        ("no sums at all", 0),
    ],
)
def test_sums_are_worked_out_again(text: str, wrong: int) -> None:
    assert column("numbers.wrong_sums", ask("How much?"), text) == wrong


def test_the_final_answer_is_found_behind_its_marker() -> None:
    request = ask("How many apples?")
    for text in (
        "3 + 4 = 7\n#### 7",
        "The answer is 7.",
        '{"answer": "7"}',
        "\\boxed{7}",
        "Die Antwort lautet 7",
        "答案是7",
    ):
        assert column("fit.announced", request, text) == 1
        assert column("numbers.log_final", request, text) == pytest.approx(np.log10(8))
    assert column("fit.announced", request, "There are 7 apples, to answer you.") == 0
    assert column("numbers.final_is_whole", request, "The answer is 7.5") == 0
    assert column("fit.number_missing", request, "The answer is several.") == 1


OPTIONS = "What is 2 * 6?\nA. 8\nB. 12\nC. 14"


def test_the_option_chosen_is_compared_with_what_was_computed() -> None:
    request = ask(OPTIONS)
    good, bad = "2 * 6 = 12. The answer is (B).", "2 * 6 = 12. The answer is (C)."
    assert column("fit.option_offered", request, good) == 1
    assert column("fit.option_number_exact", request, good) == 1
    assert column("fit.option_number_exact", request, bad) == 0
    assert column("fit.option_offered", request, "The answer is (F).") == 0
    assert column("fit.option_named", request, "I would not say.") == 0
    assert np.isnan(column("fit.option_named", ask("Hello"), "The answer is (B)."))


def test_repetition_and_copying_show() -> None:
    request = ask("Tell me about the sea and the sky over it")
    assert column("form.distinct_word_share", request, "no no no no") == pytest.approx(0.25)
    assert column("form.compressed_share", request, "again and again " * 50) < 0.2
    assert column("words.answer_words_given_share", request, "tell me about the sea") == 1


def test_log_probabilities_enter_where_there_are_some() -> None:
    answer = Answer("yes", "stop", logprobs=LogProbs.of([-0.1, -2.0, float("-inf")]))
    assert column("form.has_logprobs", ask("a"), answer) == 1
    assert column("form.lowest_logprob", ask("a"), answer) == -20
    assert column("form.unsure_token_share", ask("a"), answer) == pytest.approx(2 / 3)
    assert np.isnan(column("form.mean_logprob", ask("a"), replace(answer, logprobs=None)))
    assert LogProbs.of([]) is None
    assert LogProbs.of([float("nan"), 3.0]) is None


def test_json_is_looked_into() -> None:
    request = ask("Give me JSON", response_format={"type": "json_object"})
    assert column("fit.is_json", request, '{"a": 1, "b": 2}') == 1
    assert column("fit.json_keys", request, '{"a": 1, "b": 2}') == 2
    assert column("fit.is_json", request, "{a: 1") == 0
    assert column("form.check_json_valid", request, "{a: 1") == 1


def test_metadata_stands_apart_from_words_and_doubles_them() -> None:
    plain, tagged = (featurize_answer(ask("a", use_case=use), Answer("b c", None)) for use in (None, "chat"))
    assert len(tagged.ids) == len(plain.ids) + 3, "the use case, and both words once more for it"
    assert (tagged.ids >= N_ANSWER_TEXT_BUCKETS).sum() == (plain.ids >= N_ANSWER_TEXT_BUCKETS).sum() + 1


numerals = st.builds(
    lambda start, groups, end: start + ",000" * groups + end,
    st.sampled_from(["1", "999999999999999", "The answer is 7", "#### 1", "2 + 2 = 1", "-1", ".5", "3 * 4 = 12, "]),
    st.integers(0, 400),
    st.sampled_from(["", ".25", " = 4", " * 1,000 = 1", "%", "^9"]),
)


@settings(max_examples=150, deadline=None)
@given(numerals, numerals)
def test_a_number_of_any_length_is_read_as_finite_numbers(asked: str, said: str) -> None:
    dense = featurize_answer(ask(asked), Answer(said, "stop")).dense
    assert not np.isinf(dense).any()


@pytest.mark.parametrize("text", ["1" + ",000" * 103, "The answer is 1" + ",000" * 150, "2 + 2 = 1" + ",000" * 150])
def test_a_number_beyond_all_floats_breaks_nothing(text: str) -> None:
    assert not np.isinf(featurize_answer(ask(text), Answer(text, "stop")).dense).any()
    assert all(np.isfinite(number.value) for number in numbers_of(text))
