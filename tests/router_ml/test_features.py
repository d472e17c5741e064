"""Request -> features: one implementation, the same bytes everywhere, bounded in size and time, for any input."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_ml.errors import DataError
from router_ml.features import (
    DENSE_NAMES,
    N_BUCKETS,
    N_TEXT_BUCKETS,
    SCHEMA_HASH,
    Features,
    featurize,
    from_stored,
    stack,
    to_stored,
)
from router_ml.schema import Request, StoredFeatures

TEXT = st.text(st.characters(exclude_categories=()), max_size=120)
PART = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, TEXT),
    st.sampled_from([{"type": "image_url", "image_url": {"url": "https://x"}}, {"type": "input_audio"}, {}, "bare"]),
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "?"])},
    optional={"content": st.one_of(TEXT, st.none(), st.lists(PART, max_size=4))},
)
JSON = st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.dictionaries(TEXT, inner, max_size=3))
TOOL = st.one_of(
    st.builds(lambda name: {"type": "function", "function": {"name": name}}, TEXT),
    st.dictionaries(st.sampled_from(["type", "function", "x"]), JSON, max_size=3),
)
REQUEST = st.builds(
    Request,
    messages=st.lists(MESSAGE, max_size=6),
    tools=st.none() | st.lists(TOOL, max_size=3),
    response_format=st.none() | st.sampled_from([{"type": "json_object"}, {"type": "text"}, {}]),
    max_tokens=st.none() | st.integers(),
    tenant=st.none() | TEXT,
    feature=st.none() | TEXT,
    use_case=st.none() | TEXT,
    session_id=st.none() | TEXT,
)
ODD = Request(
    messages=[{"role": "user", "content": "\ud800 lone"}, {"role": "tool"}], tenant="\udfff", max_tokens=10**400
)


def ask(content: Any, **fields: Any) -> Request:
    return Request(messages=[{"role": "user", "content": content}], **fields)


def as_bytes(features: Features) -> bytes:
    parts = (features.dense.tobytes(), features.ids.tobytes(), features.counts.tobytes())
    return b"|".join((*parts, repr(features.input_tokens).encode()))


@given(REQUEST)
@example(ODD)
@example(Request(messages=[]))
@example(Request(messages=[{"role": "user", "content": None}], tools=[], max_tokens=-1))
def test_every_request_has_features_of_one_width_and_finite(request: Request) -> None:
    features = featurize(request)
    assert features.dense.shape == (len(DENSE_NAMES),)
    assert features.dense.dtype == features.counts.dtype == np.float32
    assert np.isfinite(features.dense).all()
    assert features.ids.dtype == np.int64
    assert (np.diff(features.ids) > 0).all()
    assert features.ids.size == features.counts.size
    assert ((features.ids >= 0) & (features.ids < N_BUCKETS)).all()
    assert np.isfinite(features.counts).all()
    assert (features.counts >= 1).all()
    assert math.isfinite(features.input_tokens)
    assert features.input_tokens >= 0


@given(st.lists(REQUEST, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_same_request_gives_the_same_bytes_alone_and_in_any_company(requests: list[Request], order: Any) -> None:
    alone = [as_bytes(featurize(request)) for request in requests]
    places = list(range(len(requests)))
    order.shuffle(places)
    together = [featurize(requests[place]) for place in places]
    assert [as_bytes(one) for one in together] == [alone[place] for place in places]


_ELSEWHERE = """
import hashlib, json, sys
from router_ml.features import SCHEMA_HASH, featurize
from router_ml.schema import Request
total = hashlib.sha256(SCHEMA_HASH.encode())
for fields in json.load(sys.stdin):
    one = featurize(Request(**fields))
    for part in (one.dense.tobytes(), one.ids.tobytes(), one.counts.tobytes(), repr(one.input_tokens).encode()):
        total.update(part)
print(total.hexdigest())
"""


def test_another_process_with_other_hash_seeds_makes_the_same_bytes() -> None:
    texts = ["", "Prove that 2+2=4.", "你好。世界", "สวัสดี", "مرحبا", "😀 ok", "a\ud800b", "word " * 3000, "é" * 50]
    fields: list[dict[str, Any]] = [{"messages": [{"role": "user", "content": text}]} for text in texts]
    fields[1] |= {"tools": [{"function": {"name": n}} for n in "xyz"], "tenant": "acme", "feature": "f"}
    total = hashlib.sha256(SCHEMA_HASH.encode())
    for one in fields:
        made = featurize(Request(**one))
        for part in (made.dense.tobytes(), made.ids.tobytes(), made.counts.tobytes(), repr(made.input_tokens).encode()):
            total.update(part)
    ran = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=json.dumps(fields),
        env={**os.environ, "PYTHONHASHSEED": "77"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == total.hexdigest()


def seconds(run: Callable[[], object], *, times: int = 7) -> float:
    def once() -> float:
        start = time.process_time()
        for _ in range(3):
            run()
        return time.process_time() - start

    return min(once() for _ in range(times))


@pytest.mark.parametrize("unit", ["word ", "字", "İ", "a", "\n- "])
def test_a_megabyte_takes_hardly_longer_than_the_longest_text_that_is_read_whole(unit: str) -> None:
    whole, megabyte = ask(unit * (6000 // len(unit))), ask(unit * (1_000_000 // len(unit)))
    featurize(whole)
    assert seconds(lambda: featurize(megabyte)) < 5 * seconds(lambda: featurize(whole)) + 0.005


def test_time_grows_with_the_number_of_messages_and_no_faster() -> None:
    def talk(n: int) -> Request:
        return Request(messages=[{"role": "user", "content": "go on"} for _ in range(n)])

    few, many = talk(50), talk(2000)
    featurize(few)
    assert seconds(lambda: featurize(many)) < 3 * (2000 / 50) * seconds(lambda: featurize(few)) + 0.005


def test_two_thousand_empty_messages_and_one_long_one_are_read() -> None:
    messages = [{"role": "user", "content": "x" * 100_000}, *({"role": "user", "content": ""} for _ in range(2000))]
    assert featurize(Request(messages=messages)).ids.size < 10_000


def test_a_word_said_n_times_counts_one_plus_its_logarithm() -> None:
    once = featurize(ask("banana"))
    for n in (2, 5, 40):
        many = featurize(ask(" ".join(["banana"] * n)))
        (word,) = once.ids[once.ids < N_TEXT_BUCKETS]
        at = int(np.flatnonzero(many.ids == word)[0])
        assert many.counts[at] == np.float32(1 + np.log(n))


def test_the_counts_of_words_and_pairs_are_those_of_the_text() -> None:
    features = featurize(ask("to be or not to be"))
    is_text = features.ids < N_TEXT_BUCKETS
    repeats = np.round(np.exp(features.counts[is_text].astype(np.float64) - 1)).astype(int)
    # to, be, (to be) twice; or, not, (be or), (or not), (not to) once
    assert sorted(repeats.tolist()) == [1, 1, 1, 1, 1, 2, 2, 2]


def test_the_order_of_words_changes_pairs_and_nothing_else() -> None:
    one, other = (set(featurize(ask(text)).ids.tolist()) for text in ("small cat sleeps", "sleeps small cat"))
    assert len(one & other) == 3 + 1 + 1  # words, the pair "small cat", the turn
    assert len(one - other) == len(other - one) == 1


def test_case_changes_no_word() -> None:
    loud, quiet = featurize(ask("PLEASE Translate THIS")), featurize(ask("please translate this"))
    assert loud.ids.tolist() == quiet.ids.tolist()
    assert loud.dense.tobytes() != quiet.dense.tobytes()


WORDS = st.lists(
    st.sampled_from(["which", "Port", "is", "deeper,", "A.", "3.5", "größer", "港口", "порт"]), min_size=1
).map(" ".join)


@given(WORDS, st.sampled_from([" " * 400, " \n\t" * 200, "\u200d", "\u2060\ufeff", "\x00", "\ufe0f" * 50]))
def test_what_cannot_be_seen_changes_no_feature(text: str, padding: str) -> None:
    plain, padded = featurize(ask(text)), featurize(ask(f"{padding}{text}{padding}"))
    assert as_bytes(padded) == as_bytes(plain)
    assert padded.sent_tokens > plain.sent_tokens


@given(st.lists(st.sampled_from(["which", "Port", "exposes", "deeper,", "A.", "3.5"]), min_size=3).map(" ".join))
def test_letters_that_look_alike_and_joiners_change_no_feature(text: str) -> None:
    plain = as_bytes(featurize(ask(f"why: {text}")))
    for change in (
        "\u200d".join,
        lambda said: said.translate({point: point + 0xFEE0 for point in range(0x21, 0x7F)}),
        lambda said: said.translate(str.maketrans("aceopxysA", "асеорхуѕА")),  # noqa: RUF001
    ):
        assert as_bytes(featurize(ask(change(f"why: {text}")))) == plain


def test_the_session_is_no_feature() -> None:
    assert as_bytes(featurize(ask("hi", session_id="a"))) == as_bytes(featurize(ask("hi", session_id="b")))


@given(st.lists(REQUEST, max_size=5))
def test_a_batch_pads_with_ids_that_weigh_nothing(requests: list[Request]) -> None:
    every = [featurize(request) for request in requests]
    batch = stack(every)
    assert len(batch) == len(requests)
    assert batch.ids.shape == batch.counts.shape
    assert batch.ids.shape[1] >= 1
    assert batch.dense.shape == (len(requests), len(DENSE_NAMES))
    for i, one in enumerate(every):
        n = one.ids.size
        assert batch.ids[i, :n].tobytes() == one.ids.tobytes()
        assert batch.counts[i, :n].tobytes() == one.counts.tobytes()
        assert not batch.ids[i, n:].any()
        assert not batch.counts[i, n:].any()
        assert batch.dense[i].tobytes() == one.dense.tobytes()
        assert batch.input_tokens[i] == one.input_tokens


@given(REQUEST)
@example(ODD)
def test_stored_features_come_back_as_they_were(request: Request) -> None:
    features = featurize(request)
    stored = StoredFeatures.model_validate_json(to_stored(features).model_dump_json())
    back = from_stored(stored)
    assert back.dense.tobytes() == features.dense.tobytes()
    assert back.ids.tobytes() == features.ids.tobytes()
    assert back.counts.tobytes() == features.counts.tobytes()
    assert back.input_tokens == pytest.approx(features.input_tokens, rel=1e-5, abs=1e-5)


def stored(**changes: Any) -> StoredFeatures:
    return to_stored(featurize(ask("some words here"))).model_copy(update=changes)


def test_features_of_another_release_are_refused() -> None:
    with pytest.raises(DataError, match=rf"schema 0123, this release makes {SCHEMA_HASH}"):
        from_stored(stored(schema_hash="0123"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dense": (1.0, 2.0)}, rf"2 dense values, expected {len(DENSE_NAMES)}"),
        ({"dense": (math.nan,) * len(DENSE_NAMES)}, "finite"),
        ({"dense": (math.inf,) * len(DENSE_NAMES)}, "finite"),
        ({"ids": (1, 2), "counts": (1.0,)}, "2 ids and 1 counts"),
        ({"ids": (1, N_BUCKETS), "counts": (1.0, 1.0)}, "ids"),
        ({"ids": (-1, 3), "counts": (1.0, 1.0)}, "ids"),
        ({"ids": (3, 3), "counts": (1.0, 1.0)}, "ids"),
        ({"ids": (3, 4), "counts": (1.0, math.nan)}, "finite"),
    ],
)
def test_stored_features_that_no_release_can_have_made_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_stored(stored(**changes))


def test_names_are_distinct_and_say_their_block() -> None:
    assert len(set(DENSE_NAMES)) == len(DENSE_NAMES)
    assert {name.partition(".")[0] for name in DENSE_NAMES} == {"text", "structure"}
    assert len(SCHEMA_HASH) == 16


def dense(request: Request, names: Sequence[str]) -> list[float]:
    values = featurize(request).dense
    return [float(values[DENSE_NAMES.index(name)]) for name in names]


def test_an_empty_request_is_all_zeros() -> None:
    assert not featurize(Request(messages=[])).dense.any()
    assert dense(ask(""), ["text.log_chars", "text.mean_word_chars", "text.distinct_word_share"]) == [0.0, 0.0, 0.0]


@given(REQUEST)
@example(ODD)
def test_without_the_bag_the_rest_is_the_same(request: Request) -> None:
    whole, rest = featurize(request), featurize(request, bag=False)
    assert rest.dense.tobytes() == whole.dense.tobytes()
    assert rest.input_tokens == whole.input_tokens
    assert (len(rest.ids), len(rest.counts)) == (0, 0)
