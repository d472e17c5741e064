"""router.toml and the environment: merged, checked as a whole, every mistake explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.config import USE_CASES, load_config
from router_ml.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

TIERS = """
[[tiers]]
name = "small"
model = "gpt-4o-mini"

[[tiers]]
name = "large"
model = "gpt-4o-2024-08-06"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "router.toml"


def test_the_example_in_the_project_is_without_mistakes() -> None:
    config = load_config(ROOT / "router.toml", {})
    assert config.ladder is not None
    assert config.ladder.names == ("small", "large")
    assert config.policy.quality == 0.97
    assert set(config.use_cases) == {"interactive_chat", "autocomplete", "batch", "inline_classification", "email"}


def test_without_a_file_the_defaults_hold() -> None:
    config = load_config(None, {})
    assert (config.source, config.ladder, config.models_dir) == ("defaults", None, Path("models"))
    assert (config.policy.max_attempts, config.store.text) == (2, True)


def test_prices_come_from_the_catalogue_the_file_and_the_tier_in_rising_order(file: Path) -> None:
    file.write_text(
        '[prices."gpt-4o"]\ninput_usd_per_mtok = 2\noutput_usd_per_mtok = 8\ncached_input_usd_per_mtok = 1\n'
        + TIERS
        + "output_usd_per_mtok = 9\n"
    )
    ladder = load_config(file, {}).ladder
    assert ladder is not None
    small, large = ladder.tiers
    assert (small.input_usd_per_mtok, small.cached_input_usd_per_mtok) == (0.15, 0.075)
    assert (large.input_usd_per_mtok, large.output_usd_per_mtok, large.cached_input_usd_per_mtok) == (2, 9, None)


def test_the_environment_lies_over_the_file(file: Path) -> None:
    file.write_text("[policy]\nquality = 0.9\n[serving]\nport = 1\n")
    environ = {
        "ROUTER_ML_POLICY__QUALITY": "0.95",
        "ROUTER_ML_STORE__TEXT": "false",
        "ROUTER_ML_STORE__URL": "sqlite:///other.db",
        "ROUTER_ML_SERVING__LIMITS__BODY": "7",
        "ROUTER_ML_USE_CASES__CHAT__TIERS": '["small"]',
        "ROUTER_ML_OUTCOMES": "no setting: it has no section",
        "OTHER__POLICY__QUALITY": "2",
    }
    config = load_config(file, environ)
    assert config.policy.quality == 0.95
    assert (config.store.text, config.store.url) == (False, "sqlite:///other.db")
    assert config.sections["serving"] == {"port": 1, "limits": {"body": 7}}
    assert config.use_cases["chat"].tiers == ("small",)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("polcy = 1", ["polcy: unknown key (did you mean 'policy'?)"]),
        ("[policy]\nqualty = 0.9", ["policy.qualty: unknown key (did you mean 'quality'?)"]),
        ("[policy]\nquality = 97", ["policy.quality: ", "got 97 (did you mean 0.97?)"]),
        ("[policy]\nquality = 0.9\nmax_attempts = 9\n[exploration]\nup = 2", ["2 problems", "max_attempts", "up: "]),
        ("[use_cases.chat]\nttft = 3", ["use_cases.chat.ttft: unknown key (did you mean 'ttft_ms'?)"]),
        ('[[tiers]]\nname = "a"', ["tiers[0].model: missing"]),
        ('[[tiers]]\nname = "a b"\nmodel = "gpt-4o"', ["tiers[0].name: "]),
        ('[[tiers]]\nname = "a"\nmodel = "gpt-4o"\nprice = 1', ["tiers[0].price: unknown key"]),
        ('[[tiers]]\nname = "a"\nmodel = "gpt-4o"', ["2 to 10 tiers, got 1 (a)"]),
        ('[[tiers]]\nname = "a"\nmodel = "mine"', ["no price is known for the model 'mine'", "set input_usd_per_mtok"]),
        (TIERS + TIERS, ["the name 'large' is used 2 times"]),
        (
            '[policy]\nsafe_tier = "larg"' + TIERS,
            ["policy.safe_tier: no tier is called 'larg' (did you mean 'large'?)"],
        ),
        ('[use_cases.x]\ntiers = ["tiny"]' + TIERS, ["use_cases.x.tiers: no tier is called 'tiny'"]),
        ("use_cases.email = 3", ["use_cases.email: "]),
        ("[use_cases.x]\ntiers = []", ["use_cases.x.tiers: ", "at least 1 item"]),
        ("[policy]\nmax_attempts = 3", ["policy.max_attempts: ", "less than or equal to 2"]),
        ("[policy", ["not valid TOML"]),
    ],
)
def test_a_mistake_is_explained_with_file_key_and_what_was_expected(file: Path, text: str, messages: list[str]) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file, {})
    assert str(caught.value).startswith(str(file))
    for message in messages:
        assert message in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\); pass a file"):
        load_config(tmp_path, {})


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path, file: Path) -> None:
    with pytest.raises(ConfigError, match=r"router\.toml: no such file"):
        load_config(file, {})
    file.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(byte 8\)"):
        load_config(file, {})


def test_the_use_cases_that_everybody_has_are_there_and_overridden_key_by_key(file: Path) -> None:
    file.write_text("[use_cases.email]\ntotal_ms = inf\n[use_cases.chat]\nttft_ms = 10\n")
    cases = load_config(file, {"ROUTER_ML_USE_CASES__BATCH__TTFT_MS": "9"}).use_cases
    assert (cases["email"].ttft_ms, cases["email"].total_ms) == (2000, float("inf"))
    assert (cases["batch"].ttft_ms, cases["batch"].total_ms) == (9, 30_000)
    assert (cases["chat"].ttft_ms, cases["chat"].total_ms, cases["chat"].tiers) == (10, None, None)
    assert set(cases) == {*USE_CASES, "chat"}
    assert load_config(None, {}).use_cases["autocomplete"].total_ms == 500


@pytest.mark.parametrize("environ", [{"ROUTER_ML_MODELS_DIR__X": "1"}, {"ROUTER_ML_POLICY__QUALITY__X": "1"}])
def test_an_override_below_a_plain_value_is_a_mistake_and_no_crash(file: Path, environ: dict[str, str]) -> None:
    file.write_text('models_dir = "models"\n[policy]\nquality = 0.9\n')
    with pytest.raises(ConfigError):
        load_config(file, environ)


@given(st.dictionaries(st.sampled_from(["policy", "tiers", "store", "use_cases", "prices", "serving"]), st.integers()))
def test_a_section_that_is_no_section_is_a_mistake_and_no_crash(
    tmp_path_factory: pytest.TempPathFactory, raw: dict[str, int]
) -> None:
    file = tmp_path_factory.mktemp("config") / "router.toml"
    file.write_text("\n".join(f"{key} = {value}" for key, value in raw.items()))
    if raw:
        with pytest.raises(ConfigError, match="problem"):
            load_config(file, {})
