"""What cannot be seen, or looks alike, changes nothing that is read; what a text says in any language stays."""

# ruff: noqa: RUF001 - other scripts' characters are what this is about

from __future__ import annotations

import base64
import time
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_ml.features.canonical import canonical, unified

ANYTHING = st.text(st.characters(exclude_categories=()), max_size=120)
# Few characters, so that runs, patterns and words of several scripts come up by themselves.
ODD = st.text(
    st.sampled_from(
        "aаbсоνρжλ01²½ \n\t\r?!.=_-+/#()\x00\x85\xa0\u2028\u200d\ufe0f\u0301\u0344\u0336ᄀ가ㄱ。文😀é’“…ﬁＡ　\ud800ـ"
    ),
    max_size=80,
)
ASCII = st.text(st.sampled_from("aabz019  \n\t\r?!.=_-/()\x00\x1c\x7f"), max_size=120)
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\U000e0041\u034f\ufe0f\u3164\x00\x08\x7f\x9f"


@given(st.one_of(ANYTHING, ODD, ASCII))
@example("\ud800 lone \udfff surrogates")
@example("!!!!?" * 4 + "x")
@example("ﹱـًb")
@example("A1" * 40 + "\n\n\nb")
@settings(max_examples=400)
def test_a_canonical_text_is_its_own_canonical_form(text: str) -> None:
    found = canonical(text)
    assert canonical(found) == found
    assert unified(unified(text)) == unified(text)
    assert unicodedata.is_normalized("NFKC", found)


@given(st.one_of(ANYTHING, ODD, ASCII), st.sampled_from(INVISIBLE))
def test_invisible_characters_change_nothing_wherever_they_stand(text: str, invisible: str) -> None:
    # Between line ends they would stand where two characters are one.
    whole = text.replace("\r", "")
    assert canonical(invisible.join(whole)) == canonical(whole + invisible) == canonical(whole)


def test_every_control_and_format_character_is_invisible_but_white_space() -> None:
    for point in range(0x110000):
        char = chr(point)
        if unicodedata.category(char) in ("Cc", "Cf") and not char.isspace():
            assert canonical(f"a{char}b") == "ab", hex(point)


@given(ASCII)
def test_ascii_changes_by_its_controls_line_ends_and_runs_alone(text: str) -> None:
    plain = "".join(char for char in text if char.isprintable() or char in " \n\t").strip()
    has_runs = any(len(set(plain[i : i + 4])) == 1 or plain[i : i + 4].isspace() for i in range(len(plain) - 3))
    has_patterns = any(plain[i : i + n] * 4 == plain[i : i + 4 * n] for n in (2, 3, 4) for i in range(len(plain)))
    has_data = any(len(word) >= 60 for word in plain.split())
    if not (has_runs or has_patterns or has_data):
        assert canonical(plain) == plain
    assert len(canonical(text)) <= len(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("one    two", "one two"),
        ("one \n\t two", "one\ntwo"),
        ("one\r\n\r\n \r\ntwo\rthree", "one\n\ntwo\nthree"),
        ("\n\n  a text \t", "a text"),
        ("a  b\n  c", "a  b\n  c"),
        ("noooooo!!!!!!", "nooo!!!"),
        ("fill in: ________", "fill in: ___"),
        ("```\ncode\n```", "```\ncode\n```"),
        ("what?!?!?!?!?!?!", "what?!?!?!"),
        ("|----|----|----|", "|---|---|---|"),
        ("😀😀😀😀😀 ok", "😀😀😀 ok"),
        ("1000000 and 0.00001", "1000000 and 0.00001"),
    ],
)
def test_padding_is_shortened_and_numbers_are_kept(text: str, found: str) -> None:
    assert canonical(text) == found


@pytest.mark.parametrize("width", [None, 64, 76])
def test_of_encoded_data_the_beginning_is_kept(width: int | None) -> None:
    data = base64.b64encode(np.random.default_rng(0).bytes(1800)).decode()
    lines = [data] if width is None else [data[i : i + width] for i in range(0, len(data) // width * width, width)]
    assert canonical("\n".join(("see", *lines, "and say"))) == f"see\n{data[:24]} \nand say"
    path = "/usr/lib/python3/dist-packages/numpy/core/_multiarray"
    assert canonical(f"in {path} it fails") == f"in {path} it fails"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Ｆｕｌｌ　ｗｉｄｔｈ！", "Full width!"),
        ("𝐁𝐨𝐥𝐝 𝒮𝒸𝓇𝒾𝓅𝓉 ⓒⓘⓡⓒⓛⓔ", "Bold Script circle"),
        ("ﬁne “quoted” it’s 5–6 − 1…", 'fine "quoted" it\'s 5-6 - 1...'),
        ("10² is 5½ times x⁻¹, H₂O", "10^2 is 5 1/2 times x-^1, H2O"),
        ("cafe\u0301", "café"),
        ("ｈａｌｆ\xa0ｶﾞ", "half ガ"),
        ("s\u0336" + "\u0301\u0302\u0303\u0304\u0305\u0306" + "t", "ś\u0336\u0302\u0303t"),
    ],
)
def test_what_looks_alike_is_written_in_one_way(text: str, found: str) -> None:
    assert canonical(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "请解释量子纠缠。它是什么?",
        "印刷術の歴史について、詳しく説明してください。",
        "인쇄기의 역사를 자세히 설명해 주세요",
        "اشرح لي تاريخ الطباعة بالتفصيل، من فضلك؟",
        "مَرحَبًا بِالعَالَمِ",
        "कृपया मुद्रण का इतिहास विस्तार से बताइए।",
        "สวัสดีครับ ช่วยอธิบายประวัติการพิมพ์",
        "Расскажите об истории печати, и о том, что с ней стало",
        "Οι Έλληνες και η ιστορία τους, από την αρχή",
        "Trình bày lịch sử ngành in, thật chi tiết",
        "Können Sie die Größe der Straße in Zürich erklären?",
        "Let Δx = αβ + λν and μ(ρ) ≤ π, where θ ∈ Ω",
        "שָׁלוֹם עוֹלָם",
        "👍🏽 🇩🇪 🎉",
    ],
)
def test_what_people_write_in_their_languages_stays(text: str) -> None:
    assert canonical(text) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("👨‍👩‍👧 and 🏳️‍🌈", "👨👩👧 and 🏳🌈"),
        ("می‌خواهم کتاب‌ها را", "میخواهم کتابها را"),
        ("क्‍ष और न्‌", "क्ष और न्"),
        ("مـــرحـــبا", "مرحبا"),
    ],
)
def test_sequences_lose_their_joiners_and_nothing_else(text: str, found: str) -> None:
    assert canonical(text) == found


def test_unifying_leaves_padding() -> None:
    assert unified("wait!!!!!!      ﬁne ") == "wait!!!!!!      fine "


def milliseconds(run: Callable[[], object]) -> float:
    def once() -> float:
        started = time.process_time()
        run()
        return time.process_time() - started

    return min(once() for _ in range(5)) * 1e3


@pytest.mark.parametrize(
    "text",
    [
        "a" + "\u0301\u0323" * 6000,
        " a" * 6000,
        "?!.," * 3000,
        "é" + "?!.,;:" * 2000,
        "аb " * 4000,
        "а" * 11_999 + "b",
        "а " + "бв" * 6000 + "b",
        "α b " + "σδ" * 6000 + "b",
        "²" * 12_000,
        "\ufdfa" * 12_000,
        ("A" * 59 + " ") * 200,
        ("A" * 60 + "\n") * 196,
    ],
    ids=lambda text: ascii(text[:5]),
)
def test_no_text_takes_long(text: str) -> None:
    assert milliseconds(lambda: canonical(text)) < 250
