"""Folders and files that are there whole or not at all."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from router_ml.durable import append_line, place_folder, replace_file


class Stop(BaseException):
    """Not an `Exception`: what Ctrl-C does."""


def accept(folder: Path) -> None:
    assert (folder / "a").read_bytes() == b"1"


def stop(folder: Path) -> None:
    raise Stop


def test_a_folder_is_verified_before_it_gets_its_name(tmp_path: Path) -> None:
    place_folder(tmp_path / "deep" / "v1", {"a": b"1", "b": b""}, verify=accept)
    assert sorted(path.name for path in (tmp_path / "deep" / "v1").iterdir()) == ["a", "b"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["v1"]


def test_nothing_is_left_behind_when_the_writing_stops(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        place_folder(tmp_path / "v1", {"a": b"1"}, verify=stop)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    with pytest.raises(FileExistsError):
        place_folder(tmp_path / "v1", {"a": b"1"}, verify=accept)
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]
    assert list((tmp_path / "v1").iterdir()) == []


def test_what_is_written_can_be_read_by_other_users(tmp_path: Path) -> None:
    place_folder(tmp_path / "v1", {"a": b"1"}, verify=accept)
    replace_file(tmp_path / "champion", b"v1\n")
    assert (tmp_path / "v1").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "champion").stat().st_mode & 0o777 == 0o644


def test_a_replaced_file_has_the_new_content_and_no_leftovers(tmp_path: Path) -> None:
    file = tmp_path / "champion"
    replace_file(file, b"v1\n")
    replace_file(file, b"v2\n")
    assert file.read_bytes() == b"v2\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_replaced_keeps_its_content(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError, match="irectory"):
        replace_file(tmp_path / "folder", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def _write(folder: str, name: str) -> None:
    for _ in range(50):
        replace_file(Path(folder) / "champion", name.encode() * 1000)
        append_line(Path(folder) / "history", name * 1000)


def test_of_concurrent_writers_one_wins_and_lines_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(tmp_path), name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert (tmp_path / "champion").read_text() in ("a" * 1000, "b" * 1000)
    lines = (tmp_path / "history").read_text().splitlines()
    assert sorted(lines) == ["a" * 1000] * 50 + ["b" * 1000] * 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["champion", "history"]
