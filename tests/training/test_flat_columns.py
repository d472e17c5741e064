"""Flat columns: values that fit are kept as they are, rows of those that do not are noted."""

from __future__ import annotations

import math

import polars as pl

from router_ml_training.flat_columns import (
    Faults,
    booleans,
    fields_of,
    list_column,
    numbers,
    of_type,
    one_of,
    texts,
    whole_numbers,
)

OWNERS = [0, 0, 1, 2, 3, 4, 5]


def test_numbers_must_be_finite_and_within_their_range() -> None:
    faults = Faults()
    found = numbers([0.5, 1, None, -0.1, math.inf, True, "1"], OWNERS, faults)
    assert found.dtype == pl.Float64
    assert found.to_list()[:3] == [0.5, 1.0, None]
    assert faults == {2, 3, 4, 5}
    few = Faults()
    numbers([1.0, 1.1, math.nan], [7, 8, 9], few, most=1.0)
    assert few == {8, 9}


def test_whole_numbers_fit_into_64_bits_and_have_no_fraction() -> None:
    faults = Faults()
    found = whole_numbers([0, 2**63 - 1, None, -1, 2**63, 1.0, True], OWNERS, faults)
    assert found.to_list()[:3] == [0, 2**63 - 1, None]
    assert faults == {2, 3, 4, 5}


def test_texts_booleans_and_choices_are_just_that() -> None:
    faults = Faults()
    assert texts(["a", None, 1], [0, 1, 2], faults).to_list() == ["a", None, None]
    assert booleans([True, None, 1], [3, 4, 5], faults).to_list() == [True, None, None]
    assert booleans([None], [6], faults, needed=True).to_list() == [None]
    assert one_of(["a", "z", None, []], {"a"}, [7, 8, 9, 10], faults).to_list() == ["a", "z", None, None]
    assert of_type([{}, [], None], dict, faults, {}) == [{}, {}, {}]
    assert faults == {1, 2, 5, 6, 8, 9, 10}


def test_lists_are_cut_by_their_lengths() -> None:
    shape = pl.List(pl.Struct({"a": pl.Int64, "b": pl.String}))
    flat = {"b": pl.Series(["x", "y", None]), "a": pl.Series([1, 2, 3])}
    found = list_column(flat, [2, 0, 1], shape)
    assert found.dtype == shape
    assert found.to_list() == [[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], [], [{"a": 3, "b": None}]]
    assert list_column({name: column[:0] for name, column in flat.items()}, [], shape).to_list() == []
    assert list_column(pl.Series(["x"]), [0, 1], pl.List(pl.String)).to_list() == [[], ["x"]]
    assert fields_of(shape) == {"a": pl.Int64, "b": pl.String}
