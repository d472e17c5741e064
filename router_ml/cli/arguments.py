"""Kinds of arguments that several commands take, as `argparse` types."""

from __future__ import annotations

import argparse

__all__ = ["whole_number"]


def whole_number(text: str) -> int:
    """Read a number from 0 up: a count, or a seed.

    Raises:
        argparse.ArgumentTypeError: When it is something else.
    """
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{text}'") from error
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value}")
    return value
