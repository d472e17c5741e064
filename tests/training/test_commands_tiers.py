"""`router-ml tiers` as a person runs it: a real bundle, a tier that joins, prices that change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_ml.bundle import ManifestDraft, load_bundle, write_bundle
from router_ml.cli import main
from router_ml.config import load_config
from router_ml.ladder import Tier
from router_ml.router import Router
from router_ml.schema import Attempt, Interaction, Request, Verdict
from router_ml.shelf import Shelf
from router_ml_training.gate import GateReport
from router_ml_training.profile import load_profile, profile_of

TIER = """
[[tiers]]
name = "{name}"
model = "{model}"
input_usd_per_mtok = {price}
output_usd_per_mtok = {out}
"""
HEAD = """
models_dir = "{home}/models"
[store]
url = "sqlite:///{home}/events.db"
[training]
learners = ["constant", "linear"]
"""
TURBO = Tier(name="turbo", model="midi", input_usd_per_mtok=0.5, output_usd_per_mtok=2.0)
Run = Callable[..., tuple[int, Any, str]]


def configure(home: Path, **prices: float) -> None:
    """Write router.toml; an output token costs four times an input token."""
    models = {"small": "mini", "large": "maxi", "turbo": "midi"}
    tiers = [TIER.format(name=name, model=models[name], price=price, out=4 * price) for name, price in prices.items()]
    (home / "router.toml").write_text(HEAD.format(home=home.as_posix()) + "".join(tiers))


def write(path: Path, items: Sequence[Interaction]) -> str:
    path.write_text("".join(f"{item.to_json()}\n" for item in items))
    return str(path)


def with_turbo(world: Any, n: int, seed: int, known: Sequence[str] = ("small", "large")) -> list[Interaction]:
    """A log in which turbo was run too; it succeeds where either of the others does, nearly always."""
    drawn = world.draw(n, np.random.default_rng(seed))
    rng = np.random.default_rng(seed + 1)
    good = (drawn.quality.max(axis=1) > 0.5) & (rng.random(n) < 0.95)
    items: list[Interaction] = world.log_of(drawn)
    return [_joined(item, ok=bool(ok), known=known) for item, ok in zip(items, good, strict=True)]


def _joined(item: Interaction, *, ok: bool, known: Sequence[str]) -> Interaction:
    others = tuple(attempt for attempt in item.attempts if attempt.tier in known)
    small = item.attempts[0].output_tokens or 0
    turbo = Attempt(
        tier="turbo",
        model="midi",
        input_tokens=100,
        output_tokens=2 * small,
        cost_usd=TURBO.cost_usd(100, 2 * small),
        verdicts=(Verdict(adequate=ok, score=float(ok), source="check"),),
    )
    return item.model_copy(update={"attempts": (*others, turbo)})


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: str) -> tuple[int, Any, str]:
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err

    return call


@pytest.fixture(scope="module")
def trained(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf with a champion for small and large."""
    folder: Path = tmp_path_factory.mktemp("trained")
    configure(folder, small=0.15, large=2.5)
    log = write(folder / "log.jsonl", world.log(500))
    assert main(["train", log, "--no-mlflow", "--promote", "--config", str(folder / "router.toml")]) == 0
    return folder / "models"


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with that shelf."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: tmp_path / "no default")
    shutil.copytree(trained, tmp_path / "models")
    configure(tmp_path, small=0.15, large=2.5)
    return tmp_path


def champion(home: Path) -> Any:
    return load_bundle(Shelf(home / "models").champion_path())


def test_what_is_known_of_the_traffic_goes_with_the_heads(world: Any, home: Path, run: Run) -> None:
    old, profile = champion(home), profile_of(world.dataset(200), np.full((200, 2), 0.7))
    named = old.manifest.model_dump(include=set(ManifestDraft.model_fields)) | {"version": "summed-up"}
    graph = (old.path / "model.onnx").read_bytes()
    write_bundle(home / "models", manifest=named, policy=old.policy, model=graph, profile=profile.to_bytes())
    log = write(home / "turbo.jsonl", with_turbo(world, 60, 7))
    configure(home, small=0.3, turbo=1.0, large=5.0)
    _, added, _ = run("tiers", "add", "turbo", "--outcomes", log, "--bundle", "summed-up", "--json")
    configure(home, small=0.3, large=5.0)
    _, repriced, _ = run("tiers", "reprice", "--bundle", "summed-up", "--json")
    for made in (added, repriced):
        assert load_profile(load_bundle(home / "models" / made["version"]).path) == profile
    _, without, _ = run("tiers", "reprice", "--json")
    assert load_profile(home / "models" / without["version"]) == load_profile(old.path)


def test_a_new_tier_joins_is_promoted_and_serves(world: Any, home: Path, run: Run) -> None:
    old = champion(home)
    log = write(home / "turbo.jsonl", with_turbo(world, 300, 7))
    configure(home, small=0.15, turbo=0.5, large=2.5)
    code, made, err = run("tiers", "add", "turbo", "--outcomes", log, "--promote", "--json")
    assert (code, err) == (0, "")
    assert made["promoted"]
    assert made["ladder"] == ["small", "turbo", "large"]
    assert made["quality"]["low"] < made["quality"]["value"] < made["quality"]["high"]
    assert made["log_loss"]["head"] < made["log_loss"]["mean_alone"]
    assert made["answer_length"]["of"] == "small"
    assert made["answer_length"]["ratio"] == pytest.approx(2.0, rel=0.1)
    assert made["certificate_needs"] > 50
    new = champion(home)
    assert new.version == made["version"] != old.version
    assert new.manifest.learner == "linear + tier turbo"
    assert new.manifest.trained_on.n_interactions == 800

    router = Router.load(load_config(home / "router.toml", {}))
    request = Request(messages=({"role": "user", "content": "prove alpha beta"},))
    decision = router.route(request, decision_id="d", rng=np.random.default_rng(0))
    assert list(decision.adequacy) == ["small", "turbo", "large"]
    asked = old.score_many(world.dataset(40, 3).features(np.arange(40)))
    again = new.score_many(world.dataset(40, 3).features(np.arange(40)))
    for before, after in zip(asked, again, strict=True):
        np.testing.assert_array_equal(after[:, [0, 2]], before)


def test_the_text_says_how_sure_it_is_and_what_is_to_be_done(world: Any, home: Path, run: Run) -> None:
    log = write(home / "turbo.jsonl", with_turbo(world, 120, 7))
    arguments = ["--model", "midi", "--input-price", "0.5", "--output-price", "2"]
    code, text, _ = run("tiers", "add", "turbo", "--outcomes", log, *arguments)
    assert code == 0
    for said in ("turbo is tier 2 of 3", "log loss", "120 outcomes are few", "none yet", "Add [[tiers]] 'turbo'"):
        assert said in text
    assert champion(home).ladder.names == ("small", "large")


def test_unknown_outcomes_of_the_other_tiers_are_the_models_opinion_and_nothing_is_promoted(
    world: Any, home: Path, run: Run
) -> None:
    items = [*with_turbo(world, 30, 1), *with_turbo(world, 150, 2, known=())]
    log = write(home / "turbo.jsonl", [item.model_copy(update={"id": f"n{i}"}) for i, item in enumerate(items)])
    configure(home, small=0.15, turbo=0.5, large=2.5)
    code, made, _ = run("tiers", "add", "turbo", "--outcomes", log, "--promote", "--json")
    assert code == 1
    assert not made["promoted"]
    assert made["policy"]["estimated"]
    assert made["gate"]["reason"].startswith("only 30 requests have the outcome of every tier")
    assert champion(home).ladder.names == ("small", "large")


def _all_good(items: list[Interaction]) -> list[Interaction]:
    return [_joined(item, ok=True, known=("small", "large")) for item in items]


def _other_schema(items: list[Interaction]) -> list[dict[str, Any]]:
    rows = [json.loads(item.to_json()) for item in items]
    stored = {"schema_hash": "0123456789abcdef", "dense": [0.0], "ids": [1], "counts": [1.0], "input_tokens": 1.0}
    return [{**row, "features": stored} for row in rows]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["small", "--outcomes", "good.jsonl"], "has a tier 'small' already"),
        (["turbo", "--outcomes", "good.jsonl"], "has no tier 'turbo': add it there, or give --model"),
        (["turbo", "--outcomes", "good.jsonl", "--model", "midi"], "no price is known for the model 'midi'"),
        (["turbo", "--outcomes", "good.jsonl", "--model", "gpt-4o", "--input-price", "-1"], "no price is known"),
        (["turbo", "--outcomes", "few.jsonl", "--model", "gpt-4o"], "only 20 of 20 interactions have an outcome"),
        (["turbo", "--outcomes", "same.jsonl", "--model", "gpt-4o"], "outcomes of 'turbo' are adequate"),
        (["turbo", "--outcomes", "without.jsonl", "--model", "gpt-4o"], "no outcome is known for the tier turbo"),
        (["turbo", "--outcomes", "schema.jsonl", "--model", "gpt-4o"], "cannot be read"),
        (["turbo", "--outcomes", "good.jsonl", "--model", "gpt-4o", "--promote"], "could not load a bundle"),
        (["turbo", "--outcomes", "missing.jsonl", "--model", "gpt-4o"], "missing.jsonl"),
    ],
)
def test_a_mistake_is_one_clear_message_and_makes_no_bundle(
    world: Any, home: Path, run: Run, arguments: list[str], said: str
) -> None:
    good = with_turbo(world, 60, 5)
    write(home / "good.jsonl", good)
    write(home / "few.jsonl", good[:20])
    write(home / "same.jsonl", _all_good(good))
    write(home / "without.jsonl", world.log(60, 5))
    (home / "schema.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in _other_schema(good)))
    before = [entry.version for entry in Shelf(home / "models").versions()]
    code, out, err = run("tiers", "add", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("router-ml: error: ")
    assert said in err
    assert [entry.version for entry in Shelf(home / "models").versions()] == before


def test_a_tier_of_the_configuration_has_its_prices_there(world: Any, home: Path, run: Run) -> None:
    log = write(home / "turbo.jsonl", with_turbo(world, 60, 5))
    configure(home, small=0.15, turbo=0.5, large=2.5)
    code, _, err = run("tiers", "add", "turbo", "--outcomes", log, "--input-price", "1")
    assert code == 2
    assert "describes 'turbo': change its model or prices there" in err
    configure(home, small=0.15, turbo=0.5)
    code, _, err = run("tiers", "add", "turbo", "--outcomes", log)
    assert code == 2
    assert "lacks large" in err


def test_prices_that_all_double_halve_the_shadow_prices_and_keep_every_decision(home: Path, run: Run) -> None:
    old = champion(home)
    code, text, _ = run("tiers", "reprice")
    assert (code, "nothing to solve" in text) == (0, True)
    configure(home, small=0.3, large=5.0)
    code, made, _ = run("tiers", "reprice", "--json", "--promote")
    assert code == 0
    new = champion(home)
    assert new.version == made["version"]
    assert (new.path / "model.onnx").read_bytes() == (old.path / "model.onnx").read_bytes()
    for before, after in zip(old.policy.frontier, new.policy.frontier, strict=True):
        assert after.shadow_price == pytest.approx(before.shadow_price / 2)
        assert after.saving == before.saving


@pytest.fixture(scope="module")
def judged(world: Any, answered: Callable[..., list[Interaction]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf whose champion judges answers, and plans with that."""
    folder: Path = tmp_path_factory.mktemp("judged")
    configure(folder, small=0.15, large=2.5)
    log = write(folder / "log.jsonl", answered(world.log(600), np.random.default_rng(1)))
    assert main(["train", log, "--no-mlflow", "--promote", "--config", str(folder / "router.toml")]) == 0
    return folder


def test_a_verifier_and_its_plans_are_kept_or_dropped_together(
    world: Any, answered: Callable[..., list[Interaction]], judged: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(judged)
    monkeypatch.setattr("router_ml.shelf.default_bundle_path", lambda: judged / "no default")
    old = champion(judged)
    assert old.verifier is not None
    assert any(point.judged for point in old.policy.frontier)
    later = write(judged / "later.jsonl", answered(world.log(400, 11), np.random.default_rng(2)))

    def made(*arguments: str) -> Any:
        code, found, err = run("tiers", *arguments, "--json")
        assert (code, err) == (0, "")
        return load_bundle(judged / "models" / found["version"]), found["notes"]

    configure(judged, small=0.3, large=5.0)
    doubled, notes = made("reprice")
    assert notes == []
    assert (doubled.path / "verifier.onnx").read_bytes() == (old.path / "verifier.onnx").read_bytes()
    assert doubled.policy.plans == old.policy.plans
    assert [one.judged for one in doubled.policy.frontier] == [one.judged for one in old.policy.frontier]

    configure(judged, small=0.15, large=2.0)
    solved, notes = made("reprice", "--log", later)
    assert notes == []
    assert solved.verifier is not None
    assert any(point.judged for point in solved.policy.frontier)

    configure(judged, small=2.5, large=0.15)
    turned, notes = made("reprice", "--log", later)
    assert (turned.verifier, turned.policy.plans) == (None, None)
    assert len(notes) == 2

    configure(judged, small=0.15, large=2.5)
    turbo = write(judged / "turbo.jsonl", with_turbo(world, 120, 7))
    prices = ("--model", "midi", "--input-price", "0.5", "--output-price", "2")
    longer, notes = made("add", "turbo", "--outcomes", turbo, *prices)
    assert (longer.verifier, longer.policy.plans) == (None, None)
    assert sum("left out" in note for note in notes) == 2


def test_one_price_alone_needs_outcomes_and_may_turn_the_order_around(world: Any, home: Path, run: Run) -> None:
    old = champion(home)
    configure(home, small=0.15, large=0.1)
    code, _, err = run("tiers", "reprice")
    assert code == 2
    assert "large from 2.5 and 10 to 0.1 and 0.4 USD" in err
    assert "give --log" in err
    log = write(home / "later.jsonl", world.log(300, 11))
    code, text, _ = run("tiers", "reprice", "--log", log, "--promote")
    assert code == 0
    assert "solved on 300 requests with every outcome known" in text
    new = champion(home)
    assert new.ladder.names == ("large", "small")
    features = world.dataset(40, 3).features(np.arange(40))
    for before, after in zip(old.score_many(features), new.score_many(features), strict=True):
        np.testing.assert_array_equal(after[:, ::-1], before)
    # The best tier is now the cheapest too: nothing else is ever worth its price.
    assert new.policy.best_tier == "large"
    router = Router.load(load_config(home / "router.toml", {}))
    request = Request(messages=({"role": "user", "content": "prove alpha beta"},))
    assert router.route(request, decision_id="d", rng=np.random.default_rng(0)).tier == "large"


def test_a_solved_policy_is_promoted_only_if_the_gate_passes(
    world: Any, home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = champion(home)
    log = write(home / "later.jsonl", world.log(300, 11))
    configure(home, small=0.15, large=2.0)
    asked = []

    def refuse(challenger: Any, policy: Any, bundle: Any, ladder: Any, *, quality: float) -> GateReport:
        asked.append((len(challenger.dataset), bundle.version, ladder.tier("large").input_usd_per_mtok, quality))
        return GateReport(False, "worse", bundle.version, 300)

    with monkeypatch.context() as patched:
        patched.setattr("router_ml_training.commands.tiers.compare", refuse)
        code, made, _ = run("tiers", "reprice", "--log", log, "--promote", "--json")
    assert asked == [(300, old.version, 2.0, 0.97)]
    assert (code, made["promoted"], made["gate"]["reason"]) == (1, False, "worse")
    assert champion(home).version == old.version
    code, made, _ = run("tiers", "reprice", "--log", log, "--promote", "--json")
    assert (code, made["promoted"], made["gate"]["passed"]) == (0, True, True)
    assert champion(home).version == made["version"]


def test_the_configuration_may_be_named_behind_the_kind(home: Path, run: Run) -> None:
    (home / "router.toml").rename(home / "other.toml")
    for arguments in (("tiers", "list", "--config", "other.toml"), ("tiers", "--config", "other.toml", "reprice")):
        code, text, err = run(*arguments)
        assert (code, err) == (0, "")
        assert text
    code, text, _ = run("tiers", "reprice", "--config", "other.toml")
    assert (code, "the prices of other.toml are those of" in text) == (0, True)


def test_repricing_other_tiers_is_refused(home: Path, run: Run) -> None:
    configure(home, small=0.15, turbo=0.5, large=2.5)
    code, _, err = run("tiers", "reprice")
    assert code == 2
    assert "`router-ml tiers add` adds one" in err


def test_the_list_shows_prices_and_what_has_changed(home: Path, run: Run) -> None:
    configure(home, small=0.15, turbo=0.5, large=3.0)
    code, text, _ = run("tiers")
    assert code == 0
    assert "turbo joins with `router-ml tiers add turbo`" in text
    assert "other prices in router.toml: large" in text
    _, found, _ = run("tiers", "list", "--json")
    assert [tier["name"] for tier in found["tiers"]] == ["small", "large"]
    assert found["best_tier"] == "large"
    assert found["repriced"] == ["large"]
