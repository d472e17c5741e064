"""`router-ml retrain` in steps: what is done is kept, what changed runs, an interrupted run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from router_ml.bundle import load_bundle
from router_ml.cli import main
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml_training.profile import load_profile
from tests.training.retrain.retrained import STEPS, append, ran, states, whole


def test_a_first_run_does_every_step_and_a_second_one_nothing(home: Path, run: Callable[..., Any]) -> None:
    code, first = run()
    assert code == 0
    assert ran(first) == STEPS
    assert first["promoted"]
    assert {line["name"] for line in first["gates"]} == {
        "certificate", "saving", "off_policy", "calibration", "slices", "parity", "latency", "drift", "size",
    }  # fmt: skip
    whole(home, first["version"])
    before = {path: path.stat().st_mtime_ns for path in (home / "models" / ".retrain" / "steps").rglob("*")}

    code, again = run()
    assert code == 0
    assert again["nothing_new"]
    assert again["steps"] == []
    assert again["version"] == first["version"]
    after = {path: path.stat().st_mtime_ns for path in (home / "models" / ".retrain" / "steps").rglob("*")}
    assert after == before
    whole(home, first["version"])


def test_nothing_new_is_said(home: Path, run: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    run()
    assert main(["retrain", "--no-mlflow"]) == 0
    assert capsys.readouterr().out.startswith("nothing new since 20")


def test_the_bundle_keeps_a_profile_and_the_shelf_what_the_gates_said(home: Path, run: Callable[..., Any]) -> None:
    _, first = run()
    shelf = Shelf(home / "models")
    profile = load_profile(shelf.path(first["version"]))
    assert profile is not None
    assert profile.n == 100
    assert set(profile.adequacy) == {"small", "large"}
    assert [dict(line) for line in shelf.gates(first["version"])] == first["gates"]


def test_a_run_that_was_interrupted_leaves_later_interactions_to_the_next(
    home: Path, run: Callable[..., Any], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("router_ml_training.retrain.finishing.write_run", _power_cut)
        main(["retrain", "--no-mlflow"])
    late = [item.model_copy(update={"ts": datetime.now(UTC), "id": f"late {i}"}) for i, item in enumerate(world.log(9))]
    append(home, late)
    code, taken_up = run()
    assert code == 0
    assert taken_up["n_interactions"] == 500
    assert ran(taken_up) == STEPS[7:]
    _, following = run()
    assert following["n_interactions"] == 509


def test_interactions_from_the_future_wait(home: Path, run: Callable[..., Any], world: Any) -> None:
    ahead = datetime.now(UTC) + timedelta(days=400)
    append(home, [item.model_copy(update={"ts": ahead, "id": f"ahead {i}"}) for i, item in enumerate(world.log(20))])
    _, found = run()
    assert found["n_interactions"] == 500
    manifest = load_bundle(Shelf(home / "models").path(found["version"])).manifest
    assert manifest.trained_on.last_ts is not None
    assert manifest.trained_on.last_ts < datetime.now(UTC)


def test_a_step_runs_again_only_when_what_it_reads_has_changed(home: Path, run: Callable[..., Any]) -> None:
    _, first = run()
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(f"{text}[gates]\nmax_ece = 0.2\n")
    code, found = run()
    assert code == 0
    assert ran(found) == ["gate", "promote"]
    whole(home, first["version"])
    (home / "router.toml").write_text(f"{text}[policy]\nquality = 0.9\n")
    _, found = run()
    assert ran(found) == ["evaluate", "register", "gate", "promote"]
    assert found["version"].endswith(".2")


def test_little_news_is_learned_by_the_last_winner_and_much_by_all(
    home: Path, run: Callable[..., Any], world: Any
) -> None:
    with_more = (home / "router.toml").read_text().replace('"linear"]', '"length", "linear"]')
    (home / "router.toml").write_text(with_more)
    _, first = run()
    assert first["learners"] == ["constant", "length", "linear"]
    more = world.log(70, 3)
    fresh = [item.model_copy(update={"id": f"fresh {item.id}"}) for item in more]
    append(home, fresh[:20])
    _, second = run()
    assert second["n_interactions"] == 520
    assert second["learners"] == ["constant", first["learner"]]
    assert "won the competition of 3 learners" in second["why_these_learners"]
    append(home, fresh[20:])
    _, third = run()
    assert third["learners"] == ["constant", "length", "linear"]
    assert "570 rows, 500 at the last competition" in third["why_these_learners"]
    kept = {path.name for path in (home / "models" / ".retrain" / "steps" / "train").iterdir()}
    assert len(kept) == 2


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(home: Path, run: Callable[..., Any], world: Any) -> None:
    code, planned = run("--dry-run")
    assert code == 0
    assert planned["n_interactions"] == 500
    assert planned["steps"] == STEPS
    assert not (home / "models").exists()
    run()
    before = sorted((home / "models").rglob("*"))
    assert run("--dry-run")[1]["steps"] == []
    append(home, [item.model_copy(update={"id": f"new {item.id}"}) for item in world.log(10, 8)])
    _, planned = run("--dry-run")
    assert (planned["n_interactions"], planned["steps"]) == (510, STEPS)
    assert sorted((home / "models").rglob("*")) == before


def test_force_runs_every_step_again(home: Path, run: Callable[..., Any]) -> None:
    _, first = run()
    code, again = run("--force")
    assert code == 0
    assert ran(again) == STEPS
    assert again["version"] != first["version"]
    assert run()[1]["nothing_new"]


def test_since_leaves_older_interactions_out(home: Path, run: Callable[..., Any]) -> None:
    _, found = run("--since", "2026-01-01T06:00")
    assert 0 < found["n_interactions"] < 500
    code, message = run("--since", "99999999999999d")
    assert code == 2
    code, message = run("--since", "yesterday")
    assert code == 2
    assert "--since: expected a time such as 2026-11-01" in message


def test_a_run_over_the_last_days_is_taken_up_too(
    home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("router_ml_training.retrain.finishing.write_run", _power_cut)
        main(["retrain", "--no-mlflow", "--since", "99999d"])
    _, taken_up = run("--since", "99999d")
    assert ran(taken_up) == STEPS[7:]


def test_the_store_counts_where_a_log_has_the_same_ids(home: Path, run: Callable[..., Any], world: Any) -> None:
    """What was exported once lacks the feedback that came since."""
    silent = [
        item.model_copy(update={"attempts": tuple(one.model_copy(update={"verdicts": ()}) for one in item.attempts)})
        for item in world.log(500)
    ]
    (home / "old.jsonl").write_text("".join(item.to_json() + "\n" for item in silent))
    code, found = run("--log", "old.jsonl")
    assert (code, found["n_interactions"]) == (0, 500)


def test_a_dry_run_uses_what_was_read_before(
    home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    monkeypatch.setattr("router_ml_training.corpus.reading.build", _power_cut)
    code, planned = run("--dry-run")
    assert (code, planned["n_interactions"]) == (0, 500)


def test_a_damaged_result_is_made_again(home: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("router_ml_training.retrain.finishing.write_run", _power_cut)
        main(["retrain", "--no-mlflow"])
    (value,) = (home / "models" / ".retrain" / "steps" / "train").glob("*/value.pickle")
    value.write_bytes(value.read_bytes()[:-1] + b"?")
    _, found = run()
    assert [name for name, state in states(found).items() if state == "cached"] == [
        "read", "label", "split", "evaluate", "certify", "export",
    ]  # fmt: skip
    whole(home, found["version"])


def test_results_are_nobody_elses_to_read(home: Path, run: Callable[..., Any]) -> None:
    run()
    assert (home / "models" / ".retrain").stat().st_mode & 0o777 == 0o700


def test_too_little_to_learn_from_does_not_hold_up_what_comes(home: Path, run: Callable[..., Any], world: Any) -> None:
    (home / "router.toml").write_text((home / "router.toml").read_text().replace("events.db", "few.db"))
    with open_store(f"sqlite:///{home}/few.db") as store:
        store.append(world.log(30))
    code, message = run()
    assert code == 2
    assert "too few to split" in message
    with open_store(f"sqlite:///{home}/few.db") as store:
        late = [
            item.model_copy(update={"ts": datetime.now(UTC), "id": f"late {i}"})
            for i, item in enumerate(world.log(500))
        ]
        store.append(late)
    code, found = run()
    assert (code, found["n_interactions"]) == (0, 530)


def test_a_version_that_was_rolled_back_is_not_promoted_again(home: Path, run: Callable[..., Any]) -> None:
    _, first = run()
    _, second = run("--force")
    assert second["promoted"]
    shelf = Shelf(home / "models")
    shelf.rollback(now=datetime.now(UTC))
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(f"{text}[gates]\nmax_ece = 0.2\n")
    code, found = run()
    assert (code, found["promoted"]) == (0, False)
    assert found["reason"] == "it was in service, and was replaced since"
    assert shelf.champion() == first["version"]


def test_a_challenger_that_fails_a_gate_stays_on_the_shelf(home: Path, run: Callable[..., Any]) -> None:
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(f"{text}[gates]\nmax_mb = 0.0001\n")
    code, found = run()
    assert (code, found["promoted"]) == (0, False)
    assert "MB" in found["reason"]
    assert Shelf(home / "models").champion() is None
    assert [entry.version for entry in Shelf(home / "models").versions()] == [found["version"]]
    (home / "router.toml").write_text(text)
    code, found = run()
    assert (code, ran(found)) == (0, ["gate", "promote"])
    whole(home, found["version"])


def test_with_manual_promotion_the_champion_waits_for_a_person(home: Path, run: Callable[..., Any]) -> None:
    text = (home / "router.toml").read_text()
    (home / "router.toml").write_text(text.replace("[training]", '[training]\npromote = "manual"'))
    code, found = run()
    assert (code, found["promoted"], found["waits"]) == (0, False, True)
    assert Shelf(home / "models").champion() is None
    (home / "router.toml").write_text(text)
    code, found = run()
    assert (code, found["promoted"], ran(found)) == (0, True, ["promote"])


def _power_cut(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_the_report_shows_the_gates_and_who_competed(home: Path, run: Callable[..., Any]) -> None:
    _, found = run("--report", str(home / "report.html"))
    page = (home / "report.html").read_text()
    assert all(line["name"] in page for line in found["gates"])
    assert "there was no competition before" in page
