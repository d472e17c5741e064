"""Flat columns: lists are cut out of them by their lengths."""

from __future__ import annotations

import polars as pl

from router_ml_training.flat_columns import fields_of, list_column


def test_lists_are_cut_by_their_lengths() -> None:
    shape = pl.List(pl.Struct({"a": pl.Int64, "b": pl.String}))
    flat = {"b": pl.Series(["x", "y", None]), "a": pl.Series([1, 2, 3])}
    found = list_column(flat, [2, 0, 1], shape)
    assert found.dtype == shape
    assert found.to_list() == [[{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], [], [{"a": 3, "b": None}]]
    assert list_column({name: column[:0] for name, column in flat.items()}, [], shape).to_list() == []
    assert list_column(pl.Series(["x"]), [0, 1], pl.List(pl.String)).to_list() == [[], ["x"]]
    assert fields_of(shape) == {"a": pl.Int64, "b": pl.String}
