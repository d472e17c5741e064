"""The pictures a reviewer asks for: what is in them, and that their data say the same."""

from __future__ import annotations

import csv
import io
import re
from xml.etree import ElementTree

import pytest

from router_ml_training.evaluation.canvas import Picture, csv_of
from router_ml_training.evaluation.confusion import Confusion
from router_ml_training.evaluation.figures_review import (
    Importance,
    drift_chart,
    feature_importance,
    slice_table,
    verifier_confusion,
)
from router_ml_training.evaluation.metrics import Figure
from router_ml_training.evaluation.report import Slice

BARS = [Importance("words", 0.05, 0.04, 0.06, 0.12, True)] + [
    Importance(f"column {i}", 0.01 / (i + 1), -0.001, 0.02, 0.01, False) for i in range(30)
]
SLICES = (
    Slice("all requests", 1200, Figure(0.972, 0.96, 0.98), Figure(0.45, 0.42, 0.48)),
    Slice("code & <tags>", 40, Figure(0.9, 0.8, None), Figure(None, reason="costs nothing")),
)
TABLES = [Confusion("small", 812, 30, 77, 140), Confusion("medium", 5, 0, 0, 0)]
SHIFTS = [("words", 0.31, 0.2), ("escalation rate", 0.05, 0.1)]


def drawn() -> dict[str, Picture]:
    pictures = (
        feature_importance(BARS, title="Importance", simulated=True),
        slice_table(SLICES, quality=0.97, title="Slices", simulated=True),
        verifier_confusion(TABLES, rule="at one half", title="Confusion", simulated=True),
        drift_chart(SHIFTS, title="Drift", simulated=True),
    )
    return {picture.name: picture for picture in pictures}


@pytest.fixture(scope="module")
def pictures() -> dict[str, Picture]:
    return drawn()


def lines(picture: Picture) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(picture.data)))


def test_each_is_a_valid_picture_that_follows_the_theme_and_says_simulated(pictures: dict[str, Picture]) -> None:
    assert list(pictures) == ["feature_importance", "slice_table", "verifier_confusion", "drift"]
    for picture in pictures.values():
        assert picture.png.startswith(b"\x89PNG\r\n")
        assert ElementTree.fromstring(picture.svg)[1].text == picture.alt
        assert re.findall(r"(?<!, )#[0-9a-f]{6}\b", picture.svg) == []
        assert "simulated data" in picture.svg


def test_the_same_figures_make_the_same_bytes(pictures: dict[str, Picture]) -> None:
    assert drawn() == pictures


def test_importance_shows_the_first_sixteen_in_both_forms(pictures: dict[str, Picture]) -> None:
    found = lines(pictures["feature_importance"])
    assert [row["feature"] for row in found] == [one.name for one in BARS[:16]]
    assert found[0] == {
        "feature": "words",
        "log_loss_added": "0.05",
        "low": "0.04",
        "high": "0.06",
        "decisions_changed": "0.12",
        "block": "1",
    }
    assert ">column 14<" in pictures["feature_importance"].svg
    assert ">column 15<" not in pictures["feature_importance"].svg


def test_slices_show_their_size_and_leave_what_is_undefined_empty(pictures: dict[str, Picture]) -> None:
    whole, code = lines(pictures["slice_table"])
    assert (whole["requests"], whole["quality_kept"], whole["saving_high"]) == ("1200", "0.972", "0.48")
    assert (code["kept_high"], code["saving"]) == ("", "")
    assert "saved an unknown share" in pictures["slice_table"].alt
    assert "asked for 97" in pictures["slice_table"].svg


def test_confusion_has_counts_and_shares_of_each_truth(pictures: dict[str, Picture]) -> None:
    found = {(row["tier"], row["judgement"], row["truth"]): row for row in lines(pictures["verifier_confusion"])}
    assert len(found) == 8
    missed = found["small", "accepted", "poor"]
    assert (missed["answers"], missed["share_of_truth"]) == ("30", "0.176471")
    right = found["small", "rejected", "poor"]
    assert float(right["low"]) == pytest.approx(1 - float(missed["high"]), abs=1e-5)
    assert found["medium", "accepted", "poor"]["share_of_truth"] == ""
    svg = pictures["verifier_confusion"].svg
    for words in ("17.6% of poor", "8.7% of good", "none known", "at one half", "small: 1,059 answers"):
        assert words in svg


def test_a_figure_that_is_undefined_is_said_to_be(pictures: dict[str, Picture]) -> None:
    assert pictures["slice_table"].svg.count(">undefined<") == 1


def test_millions_of_answers_and_long_names_keep_to_their_cells() -> None:
    name = "a-tier-with-a-name-that-is-rather-long"
    svg = verifier_confusion([Confusion(name, 123_456_789, 1, 2, 3)], rule="r", title="t").svg
    assert name not in svg[svg.index("</desc>") :]
    size = re.search(r"font-size: ([\d.]+)px[^>]*>123,456,789<", svg)
    assert size is not None
    assert float(size[1]) < 10


def test_drift_names_what_is_beyond_its_limit(pictures: dict[str, Picture]) -> None:
    assert pictures["drift"].alt.endswith("Beyond what is allowed: words.")
    assert lines(pictures["drift"])[1] == {"feature": "escalation rate", "shift": "0.05", "allowed": "0.1"}
    assert drift_chart([("a", 0.0, 0.1)], title="t").alt.endswith("none.")


def test_csv_quotes_words_and_leaves_unknown_numbers_empty() -> None:
    assert csv_of(("a", "b"), [("x, y", 1 / 3), (None, float("nan")), (7, 1e-9)]) == (
        'a,b\n"x, y",0.333333\n,\n7,1e-09\n'
    )
