"""Printing: JSON or text, and plain tables."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml.cli.output import emit, table, width_of


def test_a_result_is_text_or_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    record = {"path": Path("a/b"), "at": datetime(2026, 1, 1, tzinfo=UTC), "name": "größer"}
    emit(argparse.Namespace(json=False), record, "done\n")
    assert capsys.readouterr().out == "done\n"
    emit(argparse.Namespace(json=True), record, "done")
    out = capsys.readouterr().out
    assert json.loads(out) == {"path": "a/b", "at": "2026-01-01 00:00:00+00:00", "name": "größer"}
    assert "größer" in out


def test_numbers_are_aligned_right_and_words_left() -> None:
    expected = """\
tier    cost  share
-----  -----  -----
small   0.15   70 %
large  12.50      -"""
    assert table(["tier", "cost", "share"], [["small", "0.15", "70 %"], ["large", "12.50", None]]) == expected


def test_columns_line_up_whatever_the_script() -> None:
    assert (width_of("abc"), width_of("天空"), width_of("e\u0301")) == (3, 4, 1)
    assert table(["n", "p"], [["天", "1"], ["abc", "22"]]) == "n     p\n---  --\n天    1\nabc  22"


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["a", "bb"], []) == "a  bb\n-  --"
