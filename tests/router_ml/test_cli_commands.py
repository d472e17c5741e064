"""The commands of the library, run as a user runs them, on real bundles."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from router_ml.cli import main
from router_ml.schema import parse_interaction

Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, without settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ROUTER_ML_")]:
        monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*argv: str) -> tuple[int, str, str]:
        code = main(argv)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def champion(make_bundle: Make, workplace: Path) -> Path:
    path = make_bundle("v1")
    (workplace / "models" / "champion").write_text("v1\n")
    return path


def test_route_prints_the_decision_as_text_and_json(run: Run, champion: Path) -> None:
    code, out, _ = run("route", "hi", "--quality", "0.9")
    assert code == 0
    assert out.startswith("small (mini), then medium if its answer is poor\nsmall is expected to be adequate")
    code, out, _ = run("route", "hi", "--quality", "0.9", "--json")
    decision = json.loads(out)
    assert (code, decision["tier"], decision["policy_version"]) == (0, "small", "v1")
    assert decision["plan"] == {"first": "small", "escalate_to": "medium", "on_error": None}


def test_route_explains_every_tier(run: Run, champion: Path) -> None:
    _, out, _ = run("route", "hi", "--explain")
    assert "utility = adequacy - 20 x cost_usd" in out
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("tier "))
    assert [line.split()[0] for line in lines[head + 2 : head + 5]] == ["small", "medium", "large"]
    assert "structure.log_input_tokens" in out
    _, out, _ = run("route", "hi", "--explain", "--json")
    decision = json.loads(out)
    for name, utility in decision["utility"].items():
        assert utility == pytest.approx(decision["adequacy"][name] - 20 * decision["expected_cost_usd"][name])
    assert decision["explanation"]["qualities"][0]["high"] == 1.0
    assert [one["name"] for one in decision["explanation"]["contributions"]] == ["structure.log_input_tokens"]


def test_route_is_the_same_every_time_but_for_id_and_time(run: Run, champion: Path) -> None:
    decisions = [json.loads(run("route", "hi", "--json")[1]) for _ in range(2)]
    for decision in decisions:
        del decision["decision_id"], decision["overhead_ms"]
    assert decisions[0] == decisions[1]


def test_route_reads_a_chat_body_from_a_file_or_standard_input(
    run: Run, champion: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    body = json.dumps(
        {"model": "auto", "messages": [{"role": "user", "content": "hi"}], "tools": [tool], "max_tokens": 5}
    )
    (workplace / "body.json").write_text(body)
    monkeypatch.setattr("sys.stdin", io.StringIO(body))
    tiers = [json.loads(run("route", "--body", where, "--json")[1])["tier"] for where in ("body.json", "-")]
    assert tiers[0] == tiers[1]


def test_route_keeps_to_the_use_case(run: Run, champion: Path, workplace: Path) -> None:
    (workplace / "router.toml").write_text('[use_cases.cheap]\ntiers = ["small"]\n')
    _, out, _ = run("route", "word " * 3000, "--use-case", "cheap")
    assert out.startswith("small (mini)\nonly small may answer (allowed excludes medium, large)")
    assert "constraints: allowed excludes medium, large" in out


@pytest.mark.parametrize(
    ("argv", "stdin", "message"),
    [
        ([], "", "expected either a prompt or --body"),
        (["hi", "--body", "-"], "", "expected either a prompt or --body"),
        (["hi", "--quality", "97"], "", "did you mean 0.97?"),
        (["hi", "--config", "nowhere.toml"], "", "nowhere.toml: no such file"),
        (["--body", "nowhere.json"], "", "nowhere.json: cannot be read"),
        (["--body", "-"], "{", "-: not valid JSON"),
        (["--body", "-"], "[]", "expected a JSON object with messages, got list"),
        (["--body", "-"], "{}", "no messages"),
        (["--body", "-"], '{"messages": "hi"}', "messages: expected a list of objects"),
        (["--body", "-"], '{"messages": [{}], "tools": [1]}', "tools: expected a list of objects"),
        (["--body", "-"], '{"messages": [{}], "response_format": []}', "response_format: expected an object"),
        (["--body", "-"], '{"messages": [{}], "max_tokens": "many"}', "max_tokens: expected a whole number"),
    ],
)
def test_route_refuses_what_it_cannot_read(
    run: Run, champion: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], stdin: str, message: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
    code, out, err = run("route", *argv)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_route_says_when_the_configured_tiers_are_not_the_bundles(run: Run, champion: Path, workplace: Path) -> None:
    (workplace / "router.toml").write_text(
        '[[tiers]]\nname = "a"\nmodel = "gpt-4o"\n[[tiers]]\nname = "b"\nmodel = "gpt-4o-mini"\n'
    )
    code, _, err = run("route", "hi")
    assert code == 2
    assert "the configuration has the tiers b, a, the bundle v1 was trained for small, medium, large" in err


def test_a_bundle_is_promoted_listed_and_rolled_back(run: Run, make_bundle: Make, workplace: Path) -> None:
    make_bundle("v1", metrics={"apgr": {"value": 0.81}})
    make_bundle("v2", simulated=True)
    assert run("promote", "v1")[:2] == (0, "v1 is now in service, in place of the default bundle\n")
    code, out, _ = run("promote", "v2", "--reason", "better", "--json")
    assert (code, json.loads(out)) == (0, {"champion": "v2", "replaced": "v1", "reason": "better"})
    _, out, _ = run("models")
    assert "   v1" in out
    assert "*  v2" in out
    assert "linear (simulated data)" in out
    assert "0.81" in out
    assert run("rollback")[:2] == (0, "v1 is back in service, in place of v2\n")
    listed = json.loads(run("models", "--json")[1])
    assert listed["champion"] == "v1"
    assert [(model["version"], model["champion"]) for model in listed["models"]] == [("v1", True), ("v2", False)]


def test_a_challenger_is_put_up_listed_and_withdrawn(run: Run, make_bundle: Make, workplace: Path) -> None:
    for version in ("v1", "v2"):
        make_bundle(version)
    run("promote", "v1")
    text = "v2 challenges the champion and answers the configured share of the requests\n"
    assert run("challenge", "v2")[:2] == (0, text)
    code, out, _ = run("challenge", "v2", "--share", "0.1", "--reason", "cautious", "--json")
    assert (code, json.loads(out)["share"]) == (0, 0.1)
    out = run("models")[1]
    assert "+  v2" in out
    assert out.endswith("* in service\n+ challenger\n")
    assert run("challenge", "--none")[:2] == (0, "v2 is withdrawn; the champion answers everything\n")
    listed = json.loads(run("models", "--json")[1])
    assert (listed["champion"], listed["challenger"]) == ("v1", None)
    history = json.loads(run("models", "--history", "--json")[1])["switches"]
    assert [one["action"] for one in history] == ["promote", "challenge", "challenge", "withdraw"]
    lines = run("models", "--history")[1].splitlines()
    assert lines[0].split() == ["time", "(UTC)", "switch", "from", "to", "cause", "reason"]
    assert lines[-1].split()[2:] == ["withdraw", "v2", "-", "person", "by", "hand"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "give a version, or --none"),
        (["v2", "--none"], "give a version, or --none"),
        (["--none", "--share", "0.1"], "no share without a challenger"),
        (["--none"], "there is no challenger"),
        (["v2", "--share", "2"], "expected a share of the requests in [0, 0.9], got 2"),
    ],
)
def test_a_challenge_that_makes_no_sense_is_a_usage_error(
    run: Run, make_bundle: Make, options: list[str], words: str
) -> None:
    make_bundle("v2")
    code, _, err = run("challenge", *options)
    assert code == 2
    assert words in err


def test_without_a_switch_there_is_no_history(run: Run) -> None:
    assert run("models", "--history")[1] == "no switch yet; the default bundle serves\n"


def test_an_unknown_bundle_is_a_usage_error(run: Run, champion: Path) -> None:
    code, _, err = run("promote", "v9")
    assert code == 2
    assert "no bundle is called 'v9'" in err


def test_a_damaged_bundle_is_not_promoted(run: Run, champion: Path, make_bundle: Make) -> None:
    (make_bundle("v2") / "policy.json").write_text("{}")
    code, _, err = run("promote", "v2")
    assert code == 1
    assert "does not match its checksum" in err
    assert json.loads(run("models", "--json")[1])["champion"] == "v1"


def test_models_says_so_when_there_are_none_and_prunes(run: Run, make_bundle: Make) -> None:
    assert run("models")[1] == "no bundles in models; the default bundle serves\n"
    make_bundle("v1")
    make_bundle("v2")
    _, out, _ = run("models", "--prune", "1")
    assert out.startswith("deleted v1\n")
    assert out.endswith("the default bundle is in service\n")


def test_config_check_passes_the_projects_example(run: Run) -> None:
    example = Path(__file__).resolve().parents[2] / "router.toml"
    code, out, _ = run("config", "check", str(example))
    assert code == 0
    assert "no mistakes\ntiers: small, large\nquality: 0.97" in out
    assert json.loads(run("config", "check", str(example), "--json")[1])["tiers"] == ["small", "large"]


def test_config_check_without_a_file_checks_the_defaults(run: Run) -> None:
    assert run("config", "check")[1].startswith("defaults: no mistakes\ntiers: the bundle's")


def test_config_check_explains_the_mistakes_of_every_side_at_once(run: Run, workplace: Path) -> None:
    (workplace / "router.toml").write_text(
        "[policy]\nqualty = 1\n[serving]\nno_such_key = 1\n[training]\nnor_this = 1\n[mlflow]\nnor_that = 1\n"
    )
    code, out, err = run("config", "check")
    assert (code, out) == (2, "")
    for key in ("policy.qualty", "serving.no_such_key", "training.nor_this", "mlflow.nor_that"):
        assert f"{key}: unknown key" in err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres://db/x", "no event store is called 'postgres' (did you mean 'postgresql'?)"),
        ("mysql://me:hunter2@db/x", "no event store is called 'mysql'"),  # pragma: allowlist secret
        ("hunter2.db", "not a URL"),
    ],
)
def test_config_check_knows_what_a_store_can_be(run: Run, workplace: Path, url: str, said: str) -> None:
    (workplace / "router.toml").write_text(f'[store]\nurl = "{url}"\n')
    code, _, err = run("config", "check")
    assert code == 2
    assert f"store.url: {said}" in err
    assert "hunter2" not in err


def test_config_check_leaves_a_side_that_is_not_installed_alone(
    run: Run, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from router_ml.cli import config
    from router_ml.registry import Registry

    monkeypatch.setattr(config, "SETTINGS", Registry("section", {"serving": "a_side_nobody_has.settings:Settings"}))
    (workplace / "router.toml").write_text("[serving]\nwhatever = 1\n")
    code, out, _ = run("config", "check")
    assert code == 0
    assert "not checked, its side is not installed: [serving]" in out


@pytest.mark.parametrize("text", ["[policy", "serving = 3\n"])
def test_config_check_survives_a_file_it_cannot_read(run: Run, workplace: Path, text: str) -> None:
    (workplace / "router.toml").write_text(text)
    assert run("config", "check")[0] == 2
    assert run("config", "check", "nowhere.toml")[0] == 2


TIERS = "".join(
    f'[[tiers]]\nname = "{name}"\nmodel = "{model}"\nbase_url = "http://localhost:9/v1"\napi_key_env = "PROBE_KEY"\n'
    for name, model in (("small", "gpt-4o-mini"), ("medium", "claude-3-5-haiku"), ("large", "gpt-4o"))
)


def checks(out: str) -> dict[str, Any]:
    return {finding["check"]: finding["status"] for finding in json.loads(out)["checks"]}


def test_doctor_finds_a_healthy_installation_healthy(
    run: Run, champion: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workplace / "router.toml").write_text(TIERS)
    monkeypatch.setenv("PROBE_KEY", "x")
    code, out, _ = run("doctor", "--json")
    found = checks(out)
    assert code == 0
    assert set(found.values()) <= {"ok", "note"}
    assert {"python", "extra serving", "config", "bundle", "store", "tier small", "tier large"} <= set(found)
    assert list(workplace.glob("*.db")) == []


def test_doctor_opens_a_store_that_is_there(run: Run, champion: Path, workplace: Path) -> None:
    from router_ml.store import open_store

    with open_store("sqlite:///router_ml.db") as store:
        store.append([parse_interaction({"id": "a", "ts": "2026-01-01T00:00:00Z"})])
    code, out, _ = run("doctor")
    assert code == 0
    assert "sqlite:///router_ml.db, 1 interactions" in out


@pytest.mark.parametrize(
    ("toml", "check", "detail"),
    [
        ("[policy]\nqualty = 1\n", "config", "unknown key"),
        ('[store]\nurl = "sqlite:///no/such/folder/x.db"\n', "store", "does not exist or cannot be written"),
        ('[store]\nurl = "nonsense"\n', "store", "not a URL"),
        ('[store]\nurl = "sqlite:///not.db"\n', "store", "not.db"),
        (TIERS, "tier small", "the environment variable PROBE_KEY is not set"),
        (TIERS.replace("base_url", "#"), "tier small", "base_url is not set"),
        ('models_dir = "elsewhere"\n', "bundle", "names 'v1'"),
    ],
)
def test_doctor_names_what_is_wrong_and_fails(
    run: Run, champion: Path, workplace: Path, toml: str, check: str, detail: str
) -> None:
    (workplace / "router.toml").write_text(toml)
    (workplace / "not.db").write_bytes(b"this is no database" * 100)
    (workplace / "elsewhere").mkdir()
    (workplace / "elsewhere" / "champion").write_text("v1\n")
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert checks(out)[check] == "FAIL"
    assert detail in out
    code, text, _ = run("doctor")
    assert code == 1
    assert f"FAIL  {check}" in text
