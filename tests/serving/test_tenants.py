"""The tenants' section: what it allows, and what its mistakes are called."""

import pytest

from router_ml.config import load_config
from router_ml.errors import ConfigError
from router_ml_serving.tenants import TenantRules, tenants_of

TIERS = """
[[tiers]]
name = "small"
model = "mini"
input_usd_per_mtok = 0.1
output_usd_per_mtok = 0.1

[[tiers]]
name = "large"
model = "maxi"
input_usd_per_mtok = 5.0
output_usd_per_mtok = 5.0

"""


@pytest.fixture
def read(tmp_path):
    def read(text, environ=None):
        path = tmp_path / "router.toml"
        path.write_text(TIERS + text)
        config = load_config(path, environ or {})
        return tenants_of(config, config.ladder)

    return read


def test_a_tenant_has_its_own_rules_and_nothing_of_the_default(read):
    tenants = read('[tenants.default]\nrequests_per_minute = 60\n[tenants.acme]\ntiers = ["small"]\n')
    assert tenants.rules("acme") == TenantRules("tenants.acme", tiers=frozenset({"small"}))
    assert tenants.rules("anybody") == tenants.rules(None) == TenantRules(requests_per_minute=60.0)


def test_without_the_section_nobody_is_limited(read):
    assert read("").rules("acme") == TenantRules()


def test_a_tenant_may_be_held_to_some_sources_of_feedback(read):
    tenants = read('[tenants.acme]\nfeedback_sources = ["user", "judge"]\n')
    assert tenants.rules("acme").feedback_sources == {"user", "judge"}
    assert tenants.rules("other").feedback_sources is None


def test_the_environment_overrides_a_tenant(read):
    tenants = read("[tenants.acme]\nmax_large_share = 0.5\n", {"ROUTER_ML_TENANTS__ACME__MAX_LARGE_SHARE": "0.1"})
    assert tenants.rules("acme").max_large_share == 0.1


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('[tenants.acme]\ntiers = ["smal"]', "tenants.acme.tiers: no tier is called 'smal' (did you mean 'small'?)"),
        ("[tenants.acme]\ntiers = []", "tenants.acme.tiers"),
        ("[tenants.acme]\ntirs = ['small']", "tenants.acme.tirs: unknown key (did you mean 'tiers'?)"),
        ("[tenants.acme]\nrequests_per_minute = 0", "tenants.acme.requests_per_minute"),
        ("[tenants.acme]\ntokens_per_minute = inf", "tenants.acme.tokens_per_minute"),
        ("[tenants.acme]\nmax_large_share = 10", "tenants.acme.max_large_share"),
        ("[tenants.acme]\nmax_large_share = 0.001", "tenants.acme.max_large_share"),
        ('[tenants.acme]\ntiers = ["large"]\nmax_large_share = 0.1', "the only tier of this tenant"),
        ('[tenants.acme]\nfeedback_sources = ["verifier"]', "tenants.acme.feedback_sources"),
        ("[tenants.acme]\nfeedback_sources = []", "tenants.acme.feedback_sources"),
        ("[tenants]\nacme = 7", "tenants.acme"),
    ],
)
def test_a_mistake_is_named_with_its_key(read, text, part):
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert part in str(caught.value)


def test_all_wrong_tiers_are_reported_at_once(read):
    with pytest.raises(ConfigError, match="2 problems") as caught:
        read('[tenants.a]\ntiers = ["x"]\n[tenants.b]\ntiers = ["y"]\n')
    assert "tenants.a.tiers" in str(caught.value)
    assert "tenants.b.tiers" in str(caught.value)
