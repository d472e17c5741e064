"""The log record of a request: without text it keeps what the verifier can learn from, and not a word."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from router_ml.features.answer import answer_from_stored, featurize_answer
from router_ml.schema import Answer, Attempt, Decision, Plan, Verdict, parse_interaction
from router_ml.store.rows import stamp
from router_ml_serving.journal import row_of_exchange
from router_ml_serving.wire import read_chat

DECISION = Decision("d1", "small", "mini", Plan("small"), "v1", {}, {}, {"small": 1.0}, 0.97, 0.0, False, "because")
VERDICT = Verdict(adequate=False, source="rule", reason="it says 'secret'")


def record(attempt, *, keep_text):
    chat = read_chat({"model": "auto", "messages": [{"role": "user", "content": "Tell me"}]})
    row = row_of_exchange(
        chat, DECISION, [attempt], ts=datetime(2026, 1, 1, tzinfo=UTC), candidates=("small",), keep_text=keep_text
    )
    return chat, parse_interaction(row.body)


def test_without_text_the_answers_features_are_kept_and_no_word_of_it():
    attempt = Attempt(tier="small", response="a secret", output_tokens=3, finish_reason="stop", verdicts=(VERDICT,))
    chat, found = record(attempt, keep_text=False)
    assert "secret" not in found.to_json()
    features = answer_from_stored(found.attempts[0].features)
    expected = featurize_answer(chat.request, Answer("a secret", "stop", (), 3))
    assert features.dense.tobytes() == expected.dense.tobytes()


def test_a_failed_attempt_has_no_features():
    _, found = record(Attempt(tier="small", error="timeout"), keep_text=False)
    assert found.attempts[0].features is None


def test_with_text_the_answer_speaks_for_itself():
    _, found = record(Attempt(tier="small", response="a secret"), keep_text=True)
    assert found.attempts[0].response == "a secret"
    assert found.attempts[0].features is None


@pytest.mark.parametrize("microsecond", [0, 1, 120_000, 999_999])
@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0)), timezone(timedelta(hours=-3, minutes=-30))])
def test_its_time_has_one_width_and_one_zone_so_that_rows_sort_by_it(microsecond, zone):
    ts = datetime(2026, 1, 31, 23, 59, 59, microsecond, zone)
    chat = read_chat({"model": "auto", "messages": [{"role": "user", "content": "Tell me"}]})
    row = row_of_exchange(chat, DECISION, [], ts=ts, candidates=("small",), keep_text=True)
    assert row.ts == stamp(ts) == ts.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")
    assert parse_interaction(row.body).ts == ts
