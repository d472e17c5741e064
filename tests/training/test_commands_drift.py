"""`router-ml drift` as a cron job runs it: exit code, table, watch.json, webhook, metrics."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import write_bundle
from router_ml.cli import main
from router_ml.manifest import ManifestDraft, TrainedOn
from router_ml.schema import Attempt, Interaction
from router_ml.shelf import Shelf
from router_ml.store import open_store
from router_ml.watch import WATCH, Watch, WatchedAlarm, read_watch, write_watch
from router_ml_training.dataset import build_dataset
from router_ml_training.learning import learn
from router_ml_training.profile import profile_of
from router_ml_training.settings import TrainingSettings

TRAINED_UNTIL = datetime(2026, 1, 10, tzinfo=UTC)
END = datetime(2026, 1, 24, tzinfo=UTC)
Run = Callable[..., tuple[int, str, str]]


def spread(items: list[Interaction], since: datetime, until: datetime, **changes: Any) -> list[Interaction]:
    """Give interactions other times, evenly, and ids of their own."""
    step = (until - since) / len(items)
    return [
        item.model_copy(update={"id": f"{since:%d}-{item.id}", "ts": since + i * step, **changes})
        for i, item in enumerate(items)
    ]


def shortened(item: Interaction) -> Interaction:
    """A tier that fails where it did not, at twice the length."""
    small, *others = item.attempts
    verdict = small.verdicts[0].model_copy(update={"adequate": False, "score": 0.0})
    tokens = 2 * (small.output_tokens or 0)
    changed: Attempt = small.model_copy(update={"verdicts": (verdict,), "output_tokens": tokens})
    return item.model_copy(update={"attempts": (changed, *others)})


@pytest.fixture
def home(world: Any, config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a champion that knows its traffic, and an event store that the tests fill."""
    monkeypatch.chdir(tmp_path)
    Path("router.toml").write_text(config + '\n[store]\nurl = "sqlite:///events.db"\n')
    items = spread(world.log(1500, seed=1), TRAINED_UNTIL - timedelta(days=9), TRAINED_UNTIL)
    data = build_dataset(items, world.ladder.names)
    trained = learn(data, world.ladder, TrainingSettings(learners=("constant",)))
    draft = ManifestDraft(
        version="v1",
        created=TRAINED_UNTIL,
        trained_on=TrainedOn(digest=data.digest, n_interactions=len(data), description="made up"),
        learner="constant",
    )
    profile = profile_of(data).to_bytes()
    write_bundle(Path("models"), manifest=draft, policy=trained.policy, model=trained.graph, profile=profile)
    Shelf(Path("models")).promote("v1", reason="first", now=TRAINED_UNTIL)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["drift", "--until", END.isoformat(), *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def fill(items: list[Interaction]) -> None:
    with open_store("sqlite:///events.db") as store:
        store.append(items)


@pytest.fixture
def calm(home: Path, world: Any) -> list[Interaction]:
    return spread(world.log(1200, seed=2), TRAINED_UNTIL, END, policy_version="v1")


@pytest.fixture
def changed(calm: list[Interaction]) -> list[Interaction]:
    """From the window on, the small tier fails on half of what it did well."""
    rng = np.random.default_rng(0)
    begin = END - timedelta(days=7)
    return [shortened(item) if item.ts >= begin and rng.random() < 0.5 else item for item in calm]


def test_nothing_new_is_exit_code_0_and_written_down(home: Path, calm: list[Interaction], run: Run) -> None:
    fill(calm)
    code, out, _ = run()
    assert (code, out.splitlines()[-1]) == (0, "nothing has drifted, and no alarm rings")
    watch = read_watch(home / "models")
    assert watch is not None
    assert (watch.bundle, watch.n, watch.until) == ("v1", 600, END)
    assert not any(line.drifted for line in watch.drift)
    assert {alarm.kind for alarm in watch.alarms} == {"quality", "answer_length"}
    assert watch.sent == {}


def test_a_tier_that_changed_is_exit_code_1_and_named(
    home: Path, changed: list[Interaction], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fill(changed)
    code, out, _ = run()
    assert code == 1
    assert "quality of small fell from" in out
    assert "alert: quality of small fell from" in caplog.text
    watch = read_watch(home / "models")
    assert watch is not None
    assert {(alarm.kind, alarm.tier, alarm.direction) for alarm in watch.alarms if alarm.rings} == {
        ("quality", "small", "fall"),
        ("answer_length", "small", "rise"),
    }


def test_json_and_a_file_say_the_same(home: Path, changed: list[Interaction], run: Run) -> None:
    fill(changed)
    code, out, _ = run("--json", "--out", "found.json")
    record = json.loads(out)
    assert code == 1
    assert json.loads(Path("found.json").read_text()) == record
    assert record["quiet"] is False
    assert record["traffic"]["lines"]


def test_a_dry_run_leaves_no_trace(
    home: Path, changed: list[Interaction], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fill(changed)
    code, _, _ = run("--dry-run")
    assert code == 1
    assert not (home / "models" / WATCH).exists()
    assert "alert" not in caplog.text


def test_a_look_at_the_past_is_told_nobody_once_the_present_was_looked_at(
    home: Path, changed: list[Interaction], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fill(changed)
    later = Watch(checked=END, bundle="v1", since=END, until=END + timedelta(days=1), n=5)
    write_watch(home / "models", later)
    code, _, _ = run()
    assert (code, read_watch(home / "models")) == (1, later)
    assert "has been looked at already: nobody is told" in caplog.text
    # A golden set that ended later says nothing about traffic.
    write_watch(home / "models", later.model_copy(update={"n": 0}))
    run()
    found = read_watch(home / "models")
    assert found is not None
    assert found.until == END


def test_logs_are_looked_at_instead_of_the_store(home: Path, calm: list[Interaction], run: Run) -> None:
    Path("log.jsonl").write_text("".join(f"{item.to_json()}\n" for item in calm))
    assert run("--log", "log.jsonl", "--since", "5d")[0] == 0
    code, _, err = run("--store", "sqlite:///elsewhere.db")
    assert code == 2
    assert "no such event store" in err


def test_a_bad_watch_file_is_replaced(
    home: Path, calm: list[Interaction], run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    fill(calm)
    (home / "models" / WATCH).write_text("half a fi")
    assert run()[0] == 0
    assert "watch_unreadable" in caplog.text
    assert read_watch(home / "models") is not None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--since", "7"), "expected a length such as 12h, 7d or 2w, got '7'"),
        (("--since", "0d"), "expected a length"),
        (("--until", "soon"), "expected a time such as"),
        (("--out", "nowhere/found.json"), "there is no folder nowhere"),
        (("--bundle", "v9"), "no bundle is called 'v9'"),
    ],
)
def test_wrong_usage_is_explained(home: Path, run: Run, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert words in err


def test_a_webhook_that_is_not_set_is_said_before_anything_is_read(home: Path, run: Run) -> None:
    with Path("router.toml").open("a") as file:
        file.write('[alerts]\nwebhook_env = "NOT_SET_ANYWHERE"\n')
    code, _, err = run()
    assert code == 2
    assert "the environment variable NOT_SET_ANYWHERE is not set" in err


@pytest.fixture
def posts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What a webhook got."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("ALERT_HOOK", f"http://127.0.0.1:{server.server_address[1]}/")
        yield got
        server.shutdown()
        thread.join()


def test_a_job_that_looks_again_does_not_repeat_itself(
    home: Path, changed: list[Interaction], run: Run, posts: list[Any]
) -> None:
    with Path("router.toml").open("a") as file:
        file.write('[alerts]\nwebhook_env = "ALERT_HOOK"\n')
    fill(changed)
    assert run()[0] == run()[0] == 1
    [body] = posts
    assert body["bundle"] == "v1"
    assert {one["kind"] for one in body["alerts"]} >= {"quality", "answer_length"}
    watch = read_watch(home / "models")
    assert watch is not None
    assert set(watch.sent) == {f"{one['kind']}: {one['name']}" for one in body["alerts"]}


def test_what_a_golden_set_found_is_told_too_and_kept(
    home: Path, calm: list[Interaction], run: Run, posts: list[Any]
) -> None:
    with Path("router.toml").open("a") as file:
        file.write('[alerts]\nwebhook_env = "ALERT_HOOK"\n')
    fill(calm)
    facts = {"kind": "golden", "direction": "fall", "evidence": 2e3, "limit": 1e3, "text": "golden set: few passes"}
    alarms = tuple(WatchedAlarm(tier=tier, rings=tier == "small", **facts) for tier in ("small", "large"))
    write_watch(home / "models", Watch(checked=END, bundle="v1", since=END, until=END, n=0, alarms=alarms))
    assert run()[0] == run()[0] == 0  # the traffic is as it was
    [body] = posts
    assert body["alerts"] == [{"kind": "golden", "name": "small fall", "text": "golden set: few passes"}]
    watch = read_watch(home / "models")
    assert watch is not None
    assert [one for one in watch.alarms if one.kind == "golden"] == list(alarms)
    assert set(watch.sent) == {"golden: small fall"}
