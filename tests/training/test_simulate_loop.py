"""The simulated service logs what the real one would: the same shape, and nothing that it would not have seen."""

import json

import numpy as np
import pytest
from fastapi.testclient import TestClient

from router_ml.config import Config, ExplorationSettings, load_config
from router_ml.router import Router
from router_ml.schema import Interaction
from router_ml.store import open_store
from router_ml_serving.app import create_app
from router_ml_serving.settings import serving_settings
from router_ml_serving.upstream import Reply
from router_ml_training.dataset import build_dataset
from router_ml_training.simulate.loop import Judging, Loop
from router_ml_training.simulate.outcomes import OutcomeTable, outcome_table
from router_ml_training.simulate.truth import Truth
from router_ml_training.simulate.workload import generate

TIERS = ("small", "large")
BUSY = ExplorationSettings(up=0.2, audit=0.2, shadow=0.5)
ALL_TOLD = Judging(live=1.0, noise=0.0, thumbs=False)


@pytest.fixture(scope="module")
def table() -> OutcomeTable:
    frame = generate(200, rng=np.random.default_rng(0))
    return outcome_table(frame, {"small": "gpt-4o-mini", "large": "gpt-4o"})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    home = tmp_path_factory.mktemp("service")
    tiers = "".join(
        f'[[tiers]]\nname = "{name}"\nmodel = "{model}"\nbase_url = "http://127.0.0.1:9/v1"\n'
        for name, model in zip(TIERS, ("gpt-4o-mini", "gpt-4o"), strict=True)
    )
    path = home / "router.toml"
    path.write_text(
        f'models_dir = "{home}/models"\n{tiers}[policy]\nquality = 0.9\n'
        "[exploration]\nup = 0.2\naudit = 0.2\nshadow = 0.5\n"
        f'[store]\nurl = "sqlite:///{home}/events.db"\n[serving]\nspill = "{home}/spill.jsonl"\nseed = 4\n'
        "sessions = 0\nmemory_classes = 0\n"  # the simulation has no memory between requests
    )
    return load_config(path, {})


def logged(table: OutcomeTable, config: Config, judging: Judging = ALL_TOLD) -> list[Interaction]:
    loop = Loop(table, BUSY, judging, np.random.default_rng(4))
    return list(loop.serve(Router.load(config), range(len(table))))


def test_the_log_holds_nothing_that_was_not_fetched_and_knows_what_was_judged(
    table: OutcomeTable, config: Config
) -> None:
    log = logged(table, config)
    live = [item for item in log if item.mode == "live"]
    assert len(live) == len(table)
    rows = {item.id: i for i, item in enumerate(live)}
    for item in log:
        i = rows[str(item.tags.get("beside", item.id))]
        for attempt in item.attempts:
            k = table.tiers.index(attempt.tier)
            assert attempt.error == table.errors[i, k]
            if attempt.error is None:
                assert (attempt.response, attempt.cost_usd) == (table.responses[i, k], table.cost_usd[i, k])
        told = {one.tier: one.adequate for one in item.feedback}
        assert set(told) <= {attempt.tier for attempt in item.attempts}
        assert all(good == (table.quality[i, table.tiers.index(tier)] == 1.0) for tier, good in told.items())


def test_audits_are_complete_shadows_are_not_and_propensities_are_exact(table: OutcomeTable, config: Config) -> None:
    log = logged(table, config)
    data = build_dataset(log, TIERS)
    modes = np.array([item.mode for item in log])
    assert set(modes[data.complete]) == {"audit"}
    whole = np.array([all(attempt.error is None for attempt in item.attempts) for item in log])
    assert data.complete[(modes == "audit") & whole].all()
    assert {item.attempts[0].tier for item in log if item.mode == "shadow"} == {"small"}
    drawn = modes == "live"
    assert (data.action[drawn] >= 0).all()
    assert (data.action[~drawn] == -1).all()
    np.testing.assert_allclose(data.propensity[drawn].sum(axis=1), 1.0)
    # A share of 0.2 of 200 requests, and half of those outside it that go to the large tier.
    n_large = sum(item.attempts[0].tier == "large" for item in log if item.mode == "live")
    assert np.sum(modes == "audit") == pytest.approx(40, abs=18)
    assert np.sum(modes == "shadow") == pytest.approx(0.4 * n_large, abs=25)


def test_who_judges_is_a_choice(table: OutcomeTable, config: Config) -> None:
    silent = logged(table, config, Judging(live=0.0, noise=0.0, thumbs=False))
    assert all(item.feedback == () for item in silent if item.mode == "live")
    assert all(item.feedback for item in silent if item.mode == "audit" and item.attempts[0].error is None)
    thumbs = [one for item in logged(table, config, Judging(live=0.0)) if item.mode == "live" for one in item.feedback]
    assert {one.source for one in thumbs} == {"user"}
    wrong = logged(table, config, Judging(live=1.0, noise=1.0, thumbs=False))
    assert [one.adequate for item in wrong for one in item.feedback] == [
        not one.adequate for item in logged(table, config) for one in item.feedback
    ]


class Known:
    """An upstream that answers from the table."""

    def __init__(self, table: OutcomeTable) -> None:
        self.truth = Truth(table)

    async def complete(self, tier, body, *, deadline_s=None, cut_s=None):  # type: ignore[no-untyped-def]
        sent = json.loads(body)
        found = self.truth.find(sent["messages"]).answers[sent["model"]]  # type: ignore[union-attr]
        parsed = {
            "model": sent["model"],
            "choices": [
                {"message": {"role": "assistant", "content": found.text}, "finish_reason": found.finish_reason}
            ],
            "usage": {"prompt_tokens": found.input_tokens, "completion_tokens": found.output_tokens},
        }
        return Reply(200, {}, json.dumps(parsed).encode(), parsed)


def served(table: OutcomeTable, config: Config) -> list[Interaction]:
    store = open_store(config.store.url)
    app = create_app(serving_settings(config), config, store=store, upstream=Known(table), environ={})  # type: ignore[arg-type]
    with TestClient(app, base_url="http://localhost") as client:
        for request in table.requests:
            body = {"model": "auto", "messages": list(request.messages), "router": {}}
            for name in ("tools", "response_format", "max_tokens"):
                if getattr(request, name) is not None:
                    body[name] = getattr(request, name)
            for name in ("tenant", "feature", "use_case", "session_id"):
                body["router"][name] = getattr(request, name)  # type: ignore[index]
            assert client.post("/v1/chat/completions", json=body).status_code == 200
    with open_store(config.store.url) as store:
        return list(store.scan())


def shape(item: Interaction) -> tuple[object, ...]:
    """What the two logs have to agree on: everything but names, clocks, and who told what."""
    return (
        item.mode,
        item.id.rpartition("-")[2] if item.mode != "live" else "",
        item.candidates,
        item.propensity,
        item.explored,
        item.policy_version,
        item.tags.get("share"),
        "beside" in item.tags,
        item.tenant,
        item.use_case,
        item.request,
        [(a.tier, a.model, a.input_tokens, a.output_tokens, a.error, a.response, a.verdicts) for a in item.attempts],
        [a.cost_usd == pytest.approx(a.cost_usd) and a.finish_reason for a in item.attempts],
    )


def test_the_real_service_logs_the_same_decisions_attempts_and_background_calls(
    table: OutcomeTable, config: Config
) -> None:
    few = table.take([i for i in range(60) if not table.failed[i].any()])
    simulated = logged(few, config)
    real = served(few, config)
    assert len(real) == len(simulated)
    by_text = {(str(item.request.messages), item.mode): item for item in real}
    for item in simulated:
        assert shape(by_text[str(item.request.messages), item.mode]) == shape(item)
