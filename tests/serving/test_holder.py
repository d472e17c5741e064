"""Routers in service are swapped whole; what cannot be used is refused, said once, and tried again when it changes."""

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from router_ml.errors import BundleCorrupt
from router_ml.pointers import Challenger
from router_ml_serving.holder import RouterHolder
from router_ml_serving.telemetry import Telemetry

DECISION = SimpleNamespace(tier="small", adequacy={"small": 0.5}, propensity={"small": 1.0})


@dataclass
class Named:
    """A shelf as the holder sees it."""

    home: Path
    champion: str = "one"
    wanted: Challenger | None = None
    unreadable: bool = False

    def champion_path(self):
        if self.unreadable:
            raise BundleCorrupt("cannot be read")
        return self.home / self.champion

    def challenger(self):
        return self.wanted

    def path(self, version):
        return self.home / version


@dataclass
class Loader:
    """Loads what is called anything but `bad` and `strange`, and keeps what it was asked for."""

    asked: list[str] = field(default_factory=list)
    decision: SimpleNamespace = field(default_factory=lambda: DECISION)

    def __call__(self, path):
        self.asked.append(path.name)
        if path.name.startswith("bad") and not (path / "mended").exists():
            raise BundleCorrupt(f"{path.name} is damaged")
        if path.name == "strange":
            raise ZeroDivisionError
        ladder, bundle = SimpleNamespace(names=("small",)), SimpleNamespace(version=path.name)
        return SimpleNamespace(ladder=ladder, bundle=bundle, route=lambda *_, **__: self.decision)


@pytest.fixture
def shelf(tmp_path):
    for name in ("one", "two", "bad", "strange"):
        (tmp_path / name).mkdir()
    return Named(tmp_path)


@pytest.fixture
def load():
    return Loader()


@pytest.fixture
def holder(shelf, load):
    return RouterHolder(shelf, load, Telemetry())


def in_service(holder):
    challenger = holder.challenger
    return holder.current.bundle.version, None if challenger is None else challenger.bundle.version


def refusals(caplog):
    return [record.reason for record in caplog.records if record.message == "bundle_refused"]


def test_another_champion_is_loaded_once(holder, shelf, load):
    assert not holder.refresh()
    shelf.champion = "two"
    assert holder.refresh()
    assert not holder.refresh()
    assert (in_service(holder), load.asked) == (("two", None), ["one", "two"])
    assert not holder.refresh(force=True)
    assert load.asked[-1] == "two"


def test_a_bad_champion_is_refused_and_said_once_and_tried_again_when_it_changed(holder, shelf, load, caplog):
    shelf.champion = "bad"
    with pytest.raises(BundleCorrupt):
        holder.refresh()
    for _ in range(3):
        assert not holder.refresh()
    assert load.asked == ["one", "bad"]
    assert holder.refusals() == {"champion": "bad is damaged"}
    (shelf.home / "bad" / "more").touch()
    with pytest.raises(BundleCorrupt):
        holder.refresh()
    assert refusals(caplog) == ["bad is damaged"]
    (shelf.home / "bad" / "mended").touch()
    assert holder.refresh()
    assert (in_service(holder), holder.refusals()) == (("bad", None), {})


def test_a_pointer_that_cannot_be_read_keeps_the_champion_and_says_so_until_it_can(holder, shelf, caplog):
    shelf.unreadable = True
    for _ in range(3):
        with pytest.raises(BundleCorrupt):
            holder.refresh()
    assert (in_service(holder), holder.refusals()) == (("one", None), {"champion": "cannot be read"})
    assert len(refusals(caplog)) == 1
    shelf.unreadable = False
    assert not holder.refresh()
    assert holder.refusals() == {}


def test_a_challenger_comes_and_goes_with_its_pointer(holder, shelf, load):
    shelf.wanted = Challenger("two", 0.25)
    assert not holder.refresh()
    assert (in_service(holder), holder.challenger_share) == (("one", "two"), 0.25)
    shelf.wanted = Challenger("two")
    holder.refresh()
    assert (holder.challenger_share, load.asked) == (None, ["one", "two"])
    shelf.wanted = None
    holder.refresh()
    assert in_service(holder) == ("one", None)


def test_a_bad_challenger_is_left_out_and_does_not_keep_a_champion_out(holder, shelf, load, caplog):
    shelf.wanted = Challenger("two")
    holder.refresh()
    shelf.wanted, shelf.champion = Challenger("bad"), "two"
    for _ in range(3):
        holder.refresh()
    assert (in_service(holder), holder.refusals()) == (("two", None), {"challenger": "bad is damaged"})
    assert load.asked.count("bad") == len(refusals(caplog)) == 1
    (shelf.home / "bad" / "mended").touch()
    holder.refresh()
    assert (in_service(holder), holder.refusals()) == (("two", "bad"), {})
    shelf.wanted = None
    holder.refresh()
    assert holder.refusals() == {}


def test_a_bundle_that_decides_nonsense_is_refused(holder, shelf, load):
    for harm in ({"tier": "huge"}, {"adequacy": {"small": float("nan")}}, {"propensity": {"small": float("inf")}}):
        load.decision = SimpleNamespace(**{**vars(DECISION), **harm})
        shelf.champion = "two"
        with pytest.raises(BundleCorrupt, match="decides nonsense"):
            holder.refresh(force=True)
    assert in_service(holder) == ("one", None)


@pytest.mark.parametrize("role", ["champion", "challenger"])
def test_a_load_that_fails_in_an_unforeseen_way_does_not_end_the_looking(holder, shelf, load, caplog, role):
    async def looked():
        for name in ("strange", "strange", "two"):
            if role == "champion":
                shelf.champion = name
            else:
                shelf.wanted = Challenger(name)
            await holder.look()

    with caplog.at_level(logging.WARNING):
        asyncio.run(looked())
    assert in_service(holder) == (("two", None) if role == "champion" else ("one", "two"))
    assert [record.message for record in caplog.records].count("reload_failed") == 1
