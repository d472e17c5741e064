"""Tables as a reader takes them."""

from __future__ import annotations

import polars as pl

from router_ml_training.review.tables import brief


def test_numbers_have_four_digits_and_what_rounding_left_is_nothing() -> None:
    frame = pl.DataFrame({"name": ["a", "b"], "n": [12345, 1], "x": [0.123456, -2.2e-16], "y": [1234567.0, None]})
    assert brief(frame).rows() == [("a", 12345, 0.1235, 1235000.0), ("b", 1, 0.0, None)]
