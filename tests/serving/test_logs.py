"""One line per event, with its fields."""

import logging
import sys

from router_ml_serving.logs import FieldFormatter


def record(message, **fields):
    made = logging.makeLogRecord({"msg": message, "levelname": "WARNING", "created": 0.0, **fields})
    return FieldFormatter().format(made)


def test_fields_stand_beside_the_event():
    assert record("bundle_refused", reason="bad", tries=2) == (
        "1970-01-01T00:00:00.000+00:00 warning bundle_refused reason='bad' tries=2"
    )


def test_a_traceback_comes_below():
    try:
        raise ValueError("no")
    except ValueError:
        lines = record("failed", exc_info=sys.exc_info()).splitlines()
    assert lines[0].endswith("warning failed")
    assert lines[-1] == "ValueError: no"
