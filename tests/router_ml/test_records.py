"""Records: compared, hashed and copied by their fields, and read-only to the type checker."""

from __future__ import annotations

import copy
import pickle
from dataclasses import asdict, field, replace
from pathlib import Path

import pytest
from mypy import api

from router_ml.records import record


@record
class Point:
    """A place."""

    x: int
    y: int = 0
    seen: list[str] = field(default_factory=list, compare=False, repr=False)


def test_records_with_the_same_fields_are_the_same_and_copied_whole() -> None:
    one = Point(1, seen=["a"])
    assert one == Point(1, 0)
    assert hash(one) == hash(Point(1, 0))
    assert replace(one, x=2) == Point(2)
    assert asdict(one) == {"x": 1, "y": 0, "seen": ["a"]}
    assert copy.deepcopy(one) == pickle.loads(pickle.dumps(one)) == one
    assert repr(one).endswith("Point(x=1, y=0)")


def test_a_record_has_no_room_for_other_fields() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]


def test_the_type_checker_lets_nobody_write_to_one(tmp_path: Path) -> None:
    file = tmp_path / "writes.py"
    head = "from router_ml.records import record\n@record\nclass Point:\n    x: int\n\n"
    file.write_text(f"{head}Point(1).x = 2\n")
    said, _, status = api.run([str(file), "--no-incremental", "--follow-imports=silent"])
    assert status == 1
    assert 'Property "x" defined in "Point" is read-only' in said
