"""The engine of steps: what changes a key, what runs, what is loaded, and what becomes of damaged results."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.errors import RouterError
from router_ml_training.retrain import results as results_module
from router_ml_training.retrain.results import Damaged, Results
from router_ml_training.retrain.steps import Get, Step, StepLine, Steps, hashed


@pytest.fixture
def kept(tmp_path: Path) -> Results:
    return Results(tmp_path / "steps")


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def make(kept: Results, calls: list[str]) -> Callable[..., Steps]:
    """Three steps: a number, its double, and their sum."""

    def steps(*, number: int = 2, factor: int = 2, everything: str = "", version: int = 1) -> Steps:
        def noted(name: str, value: Callable[[Get], Any]) -> Callable[[Get], Any]:
            def run(get: Get) -> Any:
                calls.append(name)
                return value(get)

            return run

        return Steps(
            (
                Step("number", noted("number", lambda _: number), {"number": number}),
                Step("times", noted("times", lambda get: get("number") * factor), {"factor": factor}, ("number",)),
                Step("sum", noted("sum", lambda get: get("number") + get("times")), {}, ("number", "times"), version),
            ),
            kept,
            everything={"library": everything},
        )

    return steps


def states(lines: tuple[StepLine, ...]) -> list[str]:
    return [line.state for line in lines]


def test_each_step_runs_once(make: Callable[..., Steps], calls: list[str]) -> None:
    first = make()
    assert first.to_run() == ("number", "times", "sum")
    assert states(first.run()) == ["run", "run", "run"]
    assert first.get("sum") == 6
    again = make()
    assert again.to_run() == ()
    assert states(again.run()) == ["cached", "cached", "cached"]
    assert again.get("sum") == 6
    assert calls == ["number", "times", "sum"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"factor": 3}, ["cached", "run", "run"]),
        ({"number": 5}, ["run", "run", "run"]),
        ({"version": 2}, ["cached", "cached", "run"]),
        ({"everything": "1.1"}, ["run", "run", "run"]),
    ],
)
def test_what_a_step_reads_decides_what_runs(
    make: Callable[..., Steps], change: dict[str, Any], expected: list[str]
) -> None:
    make().run()
    assert states(make(**change).run()) == expected


def test_a_value_is_loaded_only_when_a_later_step_runs(
    make: Callable[..., Steps], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().run()
    loaded: list[str] = []
    load = Results.load
    monkeypatch.setattr(Results, "load", lambda self, step, key: loaded.append(step) or load(self, step, key))
    make().run()
    assert loaded == []
    make(version=2).run()
    assert loaded == ["number", "times"]


def test_a_damaged_result_is_made_again(make: Callable[..., Steps], kept: Results) -> None:
    make().run()
    (value,) = kept.directory.glob("times/*/value.pickle")
    value.write_bytes(b"rotten")
    assert states(make().run()) == ["cached", "run", "cached"]


def test_a_result_whose_class_is_gone_is_made_again(kept: Results) -> None:
    kept.save("step", "key", 1)
    (value,) = kept.directory.glob("step/key/value.pickle")
    gone = b"cno_such_module\nThing\n."
    value.write_bytes(gone)
    meta = value.with_name("meta.json")
    meta.write_text('{"sha256": "%s"}' % results_module.hashlib.sha256(gone).hexdigest())  # noqa: UP031  braces
    with pytest.raises(Damaged, match="no_such_module"):
        kept.load("step", "key")


def test_a_result_that_cannot_be_written_leaves_nothing(kept: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("router_ml.durable._write", full)
    with pytest.raises(RouterError, match=r"step 'train' \(0 MB\) cannot be written \(No space left on device\)"):
        kept.save("train", "key", 1)
    assert list(kept.directory.rglob("*.tmp")) == []
    assert not kept.has("train", "key")


def test_old_results_and_half_written_ones_are_removed(kept: Results) -> None:
    for key in ("a", "b"):
        kept.save("step", key, key)
    (kept.directory / "step" / ".c.1.tmp").mkdir()
    kept.sweep()
    kept.keep({("step", "b")})
    assert [path.name for path in (kept.directory / "step").iterdir()] == ["b"]


def test_a_hash_depends_on_values_and_not_on_their_order() -> None:
    assert hashed({"a": 1, "b": [1, 2]}) == hashed({"b": [1, 2], "a": 1})
    assert hashed([1, 2]) != hashed([2, 1])
