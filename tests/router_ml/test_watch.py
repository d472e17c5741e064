"""`watch.json`: whole or not at all, and what is no such file says so."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from router_ml.errors import BundleError, DataError
from router_ml.watch import WATCH, Watch, WatchedAlarm, WatchedDrift, read_watch, update_watch, write_watch

TIME = datetime(2026, 3, 1, tzinfo=UTC)


def a_watch() -> Watch:
    return Watch(
        checked=TIME,
        bundle="v1",
        since=TIME,
        until=TIME,
        n=3,
        drift=(WatchedDrift(name="text.log_words", kind="feature", distance=0.3, limit=0.2, drifted=True),),
        alarms=(
            WatchedAlarm(
                kind="quality", tier="small", direction="fall", evidence=9.0, limit=8.0, rings=True, text="it fell"
            ),
        ),
        sent={"quality: small fall": TIME},
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    models = tmp_path / "models"
    assert read_watch(models) is None
    assert write_watch(models, a_watch()) == models / WATCH
    assert read_watch(models) == a_watch()
    assert [path.name for path in models.iterdir()] == [WATCH]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "EOF"),
        ("[]", "an object"),
        ('{"format": 2}', "format"),
        (json.dumps({**json.loads(a_watch().model_dump_json()), "n": -1}), "n: "),
    ],
)
def test_what_is_none_is_refused_with_a_remedy(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / WATCH).write_text(content)
    with pytest.raises(DataError, match=r"watch\.json.*delete it") as caught:
        read_watch(tmp_path)
    assert words in str(caught.value)


def test_a_folder_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / WATCH).mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_watch(tmp_path)
    with pytest.raises(BundleError, match="cannot be written"):
        write_watch(tmp_path, a_watch())


def test_of_two_who_write_at_the_same_time_neither_undoes_the_other(tmp_path: Path) -> None:
    def one_more(name: str) -> None:
        def change(last: Watch | None) -> Watch:
            return a_watch().model_copy(update={"sent": {**({} if last is None else last.sent), name: TIME}})

        for _ in range(20):
            update_watch(tmp_path, change)

    threads = [threading.Thread(target=one_more, args=(f"job {i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read_watch(tmp_path)
    assert found is not None
    assert set(found.sent) == {f"job {i}" for i in range(4)}


def test_a_finding_made_while_another_is_written_waits_for_it(tmp_path: Path) -> None:
    inside, may_end = threading.Event(), threading.Event()

    def slow(_: Watch | None) -> Watch:
        inside.set()
        assert may_end.wait(10)
        return a_watch()

    seen: list[Watch | None] = []

    def second(last: Watch | None) -> Watch:
        seen.append(last)
        return a_watch()

    first = threading.Thread(target=update_watch, args=(tmp_path, slow))
    first.start()
    assert inside.wait(10)
    other = threading.Thread(target=update_watch, args=(tmp_path, second))
    other.start()
    may_end.set()
    first.join()
    other.join()
    assert seen == [a_watch()]


def test_a_file_that_cannot_be_read_is_replaced(tmp_path: Path) -> None:
    (tmp_path / WATCH).write_text("half a fi")
    update_watch(tmp_path, lambda last: a_watch() if last is None else last)
    assert read_watch(tmp_path) == a_watch()
