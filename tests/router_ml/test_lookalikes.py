"""Letters that only look Latin are read as Latin where they can be nothing else, and left where they can."""

# ruff: noqa: RUF001 - other scripts' characters are what this is about

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.features.lookalikes import without_lookalikes

SCRIPTS = st.text(st.sampled_from("abxАВаеосрхёжяНΑΒανορλΔ \u0301\u0308,1"), max_size=60)


@given(SCRIPTS)
def test_once_is_enough_and_the_form_is_kept(text: str) -> None:
    plain = unicodedata.normalize("NFKC", text)
    found = without_lookalikes(plain)
    assert without_lookalikes(found) == found
    assert unicodedata.is_normalized("NFKC", found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Whаt is thе сарitаl οf Реru?", "What is the capital of Peru?"),
        ("exposes: ехроѕеѕ", "exposes: exposes"),  # no letter of it is Latin, and nothing here is Russian
        ("hаνе a look", "have a look"),
        ("A or Β?", "A or B?"),
        ("naïve nаїvе", "naïve naïve"),
        ("ꜱᴍᴀʟʟ ᴄᴀᴘɪᴛᴀʟꜱ", "small capitals"),
    ],
)
def test_a_latin_word_is_written_in_latin(text: str, found: str) -> None:
    assert without_lookalikes(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "Что такое хор и сор?",
        "хор",  # no Latin beside it
        "What do он, она and хор mean in Russian?",  # its letters could be Latin, but this text is Russian too
        "Translate λόγος and νυν into English",
        "the frequency ν, the density ρ, and ρν",
        "Δx = 5μm, xж",
    ],
)
def test_what_can_be_meant_as_it_is_written_stays(text: str) -> None:
    assert without_lookalikes(text) == text


def test_a_disguised_word_in_a_bilingual_text_is_read_too() -> None:
    assert without_lookalikes("Что значит wоrd?") == "Что значит word?"
