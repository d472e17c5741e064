"""Tables as a reader takes them: numbers with as many digits as they mean."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs

__all__ = ["brief"]

_DIGITS = 4
# Smaller numbers are what rounding left of zero.
_NOTHING = 1e-12


def brief(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table with its numbers rounded to four significant digits."""
    numbers = cs.float()
    kept = pl.when(numbers.abs() < _NOTHING).then(0.0).otherwise(numbers.round_sig_figs(_DIGITS))
    return table.with_columns(kept.name.keep())
