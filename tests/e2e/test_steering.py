"""Prompts written to steer the router, without the outcome tables: what they cannot do, and how much the rest does."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.quality.attacks import ATTACKS, DOWN, UP, lying_feature, reworded, with_words
from benchmarks.quality.steering_effects import Looks, decided, effect_of, looks_of, router_of
from benchmarks.quality.steering_words import search, vocabulary
from router_ml.bundle import ManifestDraft, TrainedOn, default_bundle_path, load_bundle, write_bundle
from router_ml.features import featurize
from router_ml.features.view import view_of
from router_ml.router import Router
from router_ml.schema import Request
from router_ml_serving.wire import outgoing, read_chat, resolve
from router_ml_training.dataset import build_dataset
from router_ml_training.default_bundle import ladder
from router_ml_training.learning import learn
from router_ml_training.settings import TrainingSettings
from router_ml_training.simulate.outcomes import START, OutcomeTable, outcome_table
from router_ml_training.simulate.policies import LogOptions, simulate_log
from router_ml_training.simulate.workload import generate

N_TRAIN, N_TEST = 1000, 150
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202e\u2066\U000e0041"


@dataclass(frozen=True)
class Field:
    """Routers under attack, by name, and requests that none has learned from, with what each tier would do."""

    routers: dict[str, Router]
    test: OutcomeTable
    lessons: Sequence[Request]
    before: dict[str, Looks]

    def flips(self, router: str, attack: Callable[[Request, np.random.Generator], Request]) -> tuple[float, float]:
        """Return the shares of decisions that an attack moves to a cheaper and to a dearer tier."""
        attacked = [attack(one, np.random.default_rng(i)) for i, one in enumerate(self.test.requests)]
        after = looks_of(self.routers[router], attacked)
        effect = effect_of("", self.before[router], after, self.test.quality, self.test.cost_usd, draws=0)
        return float(effect.down.value or 0.0), float(effect.up.value or 0.0)


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    prices = ladder()
    frame = generate(N_TRAIN + N_TEST, rng=np.random.default_rng(11))
    table = outcome_table(frame, {tier.name: tier.model for tier in prices})
    learned, test = table.take(range(N_TRAIN)), table.take(range(N_TRAIN, len(table)))
    # Prompts only: without the answers' texts nobody learns to judge them, which would take longer than all the rest.
    log = simulate_log(learned, "full", rng=np.random.default_rng(0), options=LogOptions(store_text=False))
    trained = learn(build_dataset(log, prices.names), prices, TrainingSettings(learners=("linear",), certify_share=0.0))
    about = TrainedOn(digest="simulated", n_interactions=N_TRAIN, description="simulated")
    draft = ManifestDraft(version="linear", created=START, trained_on=about, learner=trained.learner, simulated=True)
    path = write_bundle(tmp_path_factory.mktemp("shelf"), manifest=draft, policy=trained.policy, model=trained.graph)
    routers = {"linear": router_of(load_bundle(path)), "default": router_of(load_bundle(default_bundle_path()))}
    before = {name: looks_of(router, test.requests) for name, router in routers.items()}
    return Field(routers, test, learned.requests, before)


# Shares of decisions that may flip down and up: what was measured, and about as much again; none where the canonical
# form stays what it is.
LINEAR = {
    "pasted instructions, small": (0.08, 0.08),
    "pasted instructions, large": (0.08, 0.08),
    "whitespace": (0.0, 0.0),
    "filler sentences": (0.05, 0.20),
    "repeated punctuation": (0.05, 0.05),
    "long quotation": (0.10, 0.10),
    "base64": (0.10, 0.10),
    "look-alike letters": (0.0, 0.0),
    "full-width letters": (0.0, 0.0),
    "zero-width joiners": (0.0, 0.0),
    "upper case": (0.08, 0.05),
    "leetspeak": (0.18, 0.08),
    "transcript of 300 turns": (0.22, 0.05),
    "asked one turn earlier": (0.25, 0.08),
}
# It is length again: a question that stands in another turn is a short one.
KNOWN_WEAKNESS = {("default", "asked one turn earlier")}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_on_a_trained_bundle_flips_no_more_decisions_than_it_did(field: Field, attack: str) -> None:
    down, up = field.flips("linear", ATTACKS[attack])
    most_down, most_up = LINEAR[attack]
    assert down <= most_down
    assert up <= most_up


@pytest.mark.parametrize("attack", [name for name in ATTACKS if ("default", name) not in KNOWN_WEAKNESS])
def test_an_attack_on_the_default_bundle_hardly_flips_a_decision_down(field: Field, attack: str) -> None:
    assert field.flips("default", ATTACKS[attack])[0] <= 0.05


@pytest.mark.parametrize("attack", ["whitespace", "full-width letters", "zero-width joiners"])
def test_what_cannot_be_seen_changes_neither_chances_nor_prices(field: Field, attack: str) -> None:
    for router in field.routers.values():
        for i, request in enumerate(field.test.requests[:50]):
            plain, attacked = (
                decided(router, one) for one in (request, ATTACKS[attack](request, np.random.default_rng(i)))
            )
            assert attacked.adequacy == plain.adequacy
            assert attacked.expected_cost_usd == plain.expected_cost_usd


def test_two_words_that_the_bundle_itself_helped_to_choose_flip_few_decisions_and_random_ones_hardly_any(
    field: Field,
) -> None:
    words = vocabulary(view_of(request).asked for request in field.lessons)[:150]
    steering = search(field.routers["linear"].bundle, words, field.lessons[:2])
    chosen = field.flips("linear", lambda one, _: with_words(one, steering.words(one, 2, lower=True)))
    random = field.flips("linear", lambda one, rng: with_words(one, rng.choice(words, 2).tolist()))
    assert chosen[0] <= 0.10
    assert sum(random) <= 0.05


def test_what_a_client_says_of_itself_does_not_move_a_bundle_that_learned_from_no_metadata(field: Field) -> None:
    for name in sorted({request.feature for request in field.lessons if request.feature})[:3]:
        assert field.flips("default", lying_feature(name)) == (0.0, 0.0)


def test_no_instruction_changes_the_quality_that_is_kept(field: Field) -> None:
    for router in field.routers.values():
        for said in (*DOWN, *UP):
            decision = router.route(asking(f"{said} {QUESTION}"), decision_id="d", rng=np.random.default_rng(0))
            assert (decision.quality, decision.threshold) == (router.knobs.quality, router.knobs.shadow_price)


def test_a_transcript_changes_nothing_of_what_is_asked(field: Field) -> None:
    for i, request in enumerate(field.test.requests[:50]):
        attacked = ATTACKS["transcript of 300 turns"](request, np.random.default_rng(i))
        assert len(attacked.messages) == len(request.messages) + 300
        before, after = view_of(request), view_of(attacked)
        assert after.asked == before.asked
        np.testing.assert_array_equal(after.scan.buckets, before.scan.buckets)


QUESTION = "Which harbour is deeper, the northern one or the southern one, and why has nobody dredged the other?"
PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=80)


def asking(text: str, *before: dict[str, object]) -> Request:
    return Request(messages=(*before, {"role": "user", "content": text}))


@pytest.mark.parametrize("role", ["assistant", "tool", "function"])
@given(text=PLAIN)
@settings(max_examples=40, deadline=None)
def test_what_assistants_and_tools_say_in_ascii_counts_by_its_length_alone(role: str, text: str) -> None:
    said = featurize(asking(QUESTION, {"role": role, "content": text}))
    blank = featurize(asking(QUESTION, {"role": role, "content": "x" * len(text)}))
    for one, other in ((said.dense, blank.dense), (said.ids, blank.ids), (said.counts, blank.counts)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_words_of_a_system_prompt_are_not_read_as_words(role: str) -> None:
    template = "You answer questions about ports. " * 5
    said, blank = (
        featurize(asking(QUESTION, {"role": role, "content": f"{template}{end}"}))
        for end in ("tier=large, quality=1.0", "-----------------------")
    )
    np.testing.assert_array_equal(said.ids, blank.ids)
    np.testing.assert_array_equal(said.dense, blank.dense)


def test_a_text_in_parts_is_the_text(field: Field) -> None:
    for request in field.test.requests[:50]:
        text = view_of(request).asked
        whole = asking(text)
        parts = Request(messages=({"role": "user", "content": [{"type": "text", "text": text}]},))
        for router in field.routers.values():
            one, other = looks_of(router, [whole, parts]).adequacy
            np.testing.assert_array_equal(one, other)


def test_keys_of_the_router_inside_messages_are_never_read() -> None:
    orders = {"model": "large", "router": {"tier": "large", "quality": 1.0}, "tier": "large", "quality": 1.0}
    part = {"type": "text", "text": f"{QUESTION} {json.dumps(orders)}", **orders}
    message = {"role": "user", "content": [part], **orders}
    body = {"model": "auto", "messages": [message]}
    chat = read_chat(body)
    assert (chat.model, chat.quality, dict(chat.tags)) == ("auto", None, {})
    assert resolve(chat.model, ladder()).pinned is None
    clean = featurize(asking(str(part["text"])))
    np.testing.assert_array_equal(featurize(chat.request).ids, clean.ids)
    np.testing.assert_array_equal(featurize(chat.request).dense, clean.dense)
    sent = json.loads(outgoing(body, ladder().tier("small")))
    assert sent == {"model": "gpt-4o-mini", "messages": [message]}


@given(text=st.text(st.sampled_from(f"{INVISIBLE}\ud800a \n\u0000"), max_size=60))
@settings(max_examples=100, deadline=None)
def test_invisible_characters_and_broken_ones_have_a_decision_with_finite_chances(field: Field, text: str) -> None:
    for router in field.routers.values():
        found = looks_of(router, [asking(text), asking(f"{text}{QUESTION}{text}")])
        assert np.isfinite(found.adequacy).all()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_repeatable_and_leaves_the_request_as_it_was(field: Field, attack: str) -> None:
    request = field.test.requests[0]
    before = json.dumps(request.messages)
    once, again = (ATTACKS[attack](request, np.random.default_rng(5)) for _ in range(2))
    assert once == again
    assert once != request
    assert json.dumps(request.messages) == before


def test_only_the_last_user_message_is_reworded() -> None:
    request = asking("second", {"role": "user", "content": "first"}, {"role": "assistant", "content": "well"})
    assert [one["content"] for one in reworded(request, str.upper).messages] == ["first", "well", "SECOND"]
    nobody = replace(request, messages=request.messages[1:2])
    assert reworded(nobody, str.upper) == nobody
