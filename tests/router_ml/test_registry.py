"""Registries: nothing is imported before it is asked for, and a wrong name or a missing package is explained."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from router_ml.errors import MissingExtra, UnknownName
from router_ml.registry import Registry, did_you_mean, require


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[object]:
    (tmp_path / "part_good.py").write_text("thing = 42\n")
    (tmp_path / "part_poor.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("part_good", "part_poor"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return Registry("part", {"good": "part_good:thing", "poor": "part_poor:thing", "lost": "part_good:nothing"})


def test_names_are_known_without_importing_anything(parts: Registry[object]) -> None:
    assert (list(parts), len(parts), "good" in parts, "bad" in parts) == (["good", "poor", "lost"], 3, True, False)
    assert "part_good" not in sys.modules


def test_a_part_is_imported_when_it_is_asked_for(parts: Registry[object]) -> None:
    assert parts.load("good") == 42
    assert "part_good" in sys.modules


def test_an_unknown_name_is_answered_with_the_closest_and_all(parts: Registry[object]) -> None:
    with pytest.raises(UnknownName) as caught:
        parts.load("goood")
    assert str(caught.value) == "no part is called 'goood' (did you mean 'good'?); known: good, lost, poor"


def test_a_missing_package_is_answered_with_the_extra(parts: Registry[object]) -> None:
    with pytest.raises(MissingExtra, match=r"a_package_nobody_has is needed.*pip install 'router-ml\[training\]'"):
        parts.load("poor")


def test_a_wrong_attribute_is_a_mistake_of_ours(parts: Registry[object]) -> None:
    with pytest.raises(AttributeError):
        parts.load("lost")


def test_nothing_close_gives_no_hint() -> None:
    assert did_you_mean("xyz", ["alpha", "beta"]) == ""
    assert did_you_mean("alpah", {"alpha": 1}) == " (did you mean 'alpha'?)"


def test_an_optional_dependency_is_returned_or_its_extra_named() -> None:
    assert require("json", extra="training", why="test").dumps(1) == "1"
    with pytest.raises(MissingExtra, match="is needed to draw pictures"):
        require("a_package_nobody_has", extra="training", why="draw pictures")


def test_a_broken_dependency_is_not_called_missing(parts: Registry[object]) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_nobody_has"):
        require("part_poor", extra="training", why="test")
