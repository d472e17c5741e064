"""Interactions -> arrays: shapes, groups, digests, and one clear error for a log that teaches nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_ml.errors import DataError
from router_ml.features import DENSE_NAMES, N_BUCKETS, featurize, stack, to_stored
from router_ml.schema import Interaction
from router_ml_training.dataset import build_dataset, joined

TIERS = ("small", "large")
START = datetime(2026, 1, 1, tzinfo=UTC)


def item(
    i: int, prompt: Any = "what is this", *, good: str = "small", bad: str | None = None, **fields: Any
) -> Interaction:
    attempts = [{"tier": good, "verdicts": [{"adequate": True, "source": "check"}], "output_tokens": 10}]
    if bad is not None:
        attempts.insert(0, {"tier": bad, "verdicts": [{"adequate": False, "source": "check"}]})
    base = {
        "id": f"id{i}",
        "ts": START + timedelta(seconds=i),
        "request": {"messages": [{"role": "user", "content": prompt}]},
        "attempts": attempts,
    }
    return Interaction.model_validate({**base, **fields})


def pair(**fields: Any) -> list[Interaction]:
    return [item(1, "first", **fields), item(2, "second", good="large", **fields)]


def test_rows_come_in_the_order_of_the_log_with_the_features_of_the_service() -> None:
    items = [
        item(3, "short"),
        item(1, "a longer prompt, it is", good="large", bad="small"),
        item(2, "漢字 and emoji 😀", mode="audit", bad="small", good="large"),
    ]
    data = build_dataset(items, TIERS)
    assert len(data) == 3
    assert data.dense.shape == (3, len(DENSE_NAMES))
    assert data.text.shape == (3, N_BUCKETS)
    expected = stack([featurize(one.to_request()) for one in items])
    found = data.features(range(3))
    assert found.dense.tobytes() == expected.dense.tobytes()
    assert found.ids.tobytes() == expected.ids.tobytes()
    assert found.counts.tobytes() == expected.counts.tobytes()
    np.testing.assert_array_equal(found.input_tokens, expected.input_tokens)
    np.testing.assert_array_equal(data.quality, [[1, np.nan], [0, 1], [0, 1]])
    np.testing.assert_array_equal(data.escalated, [[False, False], [False, True], [False, False]])
    assert data.complete.tolist() == [False, False, True]  # an escalated outcome is known of hard requests only
    assert data.ts.tolist() == [one.ts.timestamp() for one in items]


def test_rows_of_an_index_or_a_mask_keep_everything_together() -> None:
    data = build_dataset([item(i, f"prompt {i} " * (i + 1), good=TIERS[i % 2]) for i in range(6)], TIERS)
    by_index, by_mask = data.rows(np.array([4, 1])), data.rows(np.arange(6) % 2 == 1)
    assert by_index.ts.tolist() == data.ts[[4, 1]].tolist()
    np.testing.assert_array_equal(by_index.quality, data.quality[[4, 1]])
    assert by_index.features([0]).ids.tobytes() == data.features([4]).ids.tobytes()
    assert len(by_mask) == 3
    assert by_mask.tiers == data.tiers


def test_a_session_is_one_group_and_equal_prompts_are_one_group() -> None:
    items = [
        item(0, "Hello, World!", session_id="s"),
        item(1, "something else", session_id="s", good="large"),
        item(2, "What is  2+2?"),
        item(3, "what is 2 + 2"),
        item(4, "What is 3+3?"),
    ]
    group = build_dataset(items, TIERS).group
    assert group[0] == group[1]
    assert group[2] == group[3]
    assert len(set(group.tolist())) == 3


def test_prompts_without_words_are_groups_of_their_own() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "u"}}]
    items = [item(0, picture), item(1, picture, good="large"), item(2, ""), item(3, None), item(4, request={})]
    assert len(set(build_dataset(items, TIERS).group.tolist())) == 5


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(max_codepoint=127), max_size=60))
def test_plain_english_is_in_the_group_that_any_text_with_the_same_words_is_in(text: str) -> None:
    # The first character takes the longer way, and is itself no part of a word.
    items = [item(0, text), item(1, f"\N{EM DASH}{text}", good="large")]
    group = build_dataset(items, TIERS).group
    assert (group[0] == group[1]) == any(char.isalnum() or char == "_" for char in text)


def test_the_last_user_turn_is_what_makes_prompts_equal() -> None:
    def talk(i: int, *turns: str) -> Interaction:
        messages = [{"role": "user", "content": turn} for turn in turns]
        return item(i, request={"messages": [*messages, {"role": "assistant", "content": str(i)}]}, good=TIERS[i % 2])

    group = build_dataset([talk(0, "a", "same"), talk(1, "b", "same"), talk(2, "same", "other")], TIERS).group
    assert group[0] == group[1] != group[2]


def test_stored_features_replace_the_text() -> None:
    with_text = pair()
    without = [one.model_copy(update={"features": to_stored(featurize(one.to_request()))}) for one in with_text]
    without = [one.model_copy(update={"request": one.request.model_copy(update={"messages": ()})}) for one in without]
    one, other = build_dataset(with_text, TIERS), build_dataset(without, TIERS)
    assert one.dense.tobytes() == other.dense.tobytes()
    assert (one.text != other.text).nnz == 0
    assert one.digest == other.digest
    assert len(set(other.group.tolist())) == 2


def test_the_digest_changes_with_ids_and_evidence_and_with_nothing_else() -> None:
    base = build_dataset(pair(), TIERS).digest
    assert base == build_dataset(pair(tenant="acme"), TIERS).digest
    assert base != build_dataset([pair()[0], item(3, "second", good="large")], TIERS).digest
    assert base != build_dataset([pair()[0], item(2, "second", good="large", bad="small")], TIERS).digest
    assert base != build_dataset(pair()[::-1], TIERS).digest


def test_a_log_is_simulated_when_a_row_says_so_and_dated_when_every_row_has_a_time() -> None:
    plain = build_dataset(pair(), TIERS)
    assert (plain.simulated, plain.dated) == (False, True)
    made_up = build_dataset(pair(tags={"simulated": "full", "ts_assigned": True}), TIERS)
    assert (made_up.simulated, made_up.dated) == (True, False)
    mixed = build_dataset([pair(tags={"ts_assigned": True})[0], pair()[1]], TIERS)
    assert not mixed.dated


def test_the_first_draw_of_a_policy_is_kept_with_its_propensities() -> None:
    odds = {"small": 0.75, "large": 0.25}
    items = [
        item(0, propensity=odds),
        item(1, bad="small", good="large", propensity={"small": 1.0}),  # a chain counts by its first tier
        item(2, good="large"),
        item(3, propensity=odds, mode="audit"),
        item(4, propensity={"small": 1.0}, candidates=["small"]),  # the client named the tier
        item(5, propensity=odds, attempts=[]),
        item(6, good="other", propensity={"other": 1.0}),
    ]
    data = build_dataset(items, TIERS)
    assert data.action.tolist() == [0, 0, 1, -1, -1, -1, -1]
    np.testing.assert_array_equal(data.propensity, [[0.75, 0.25], [1, 0], *[[np.nan] * 2] * 5])
    assert data.rows(np.array([2, 0])).action.tolist() == [1, 0]
    assert joined(data, data).propensity.shape == (14, 2)


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(DataError, match="the log holds no interaction"):
        build_dataset([], TIERS)


def test_a_log_without_a_single_outcome_is_refused() -> None:
    items = [one.model_copy(update={"attempts": ()}) for one in pair()]
    with pytest.raises(DataError, match=r"none of the 2 interactions says .* record feedback, verdicts or escalations"):
        build_dataset(items, TIERS)


def test_a_log_that_only_a_verifier_judged_is_refused_and_says_why() -> None:
    judged = [{"tier": name, "verdicts": [{"adequate": True, "score": 0.9, "source": "verifier"}]} for name in TIERS]
    with pytest.raises(DataError, match="the router's own opinion"):
        build_dataset([item(i, attempts=judged) for i in range(5)], TIERS)


def test_a_log_of_nothing_but_errors_is_refused() -> None:
    broken = [{"tier": name, "error": "timeout"} for name in TIERS]
    with pytest.raises(DataError, match="none of the 5 interactions says"):
        build_dataset([item(i, attempts=broken) for i in range(5)], TIERS)


def test_a_judge_whom_people_contradict_is_evidence_and_no_longer_the_outcome() -> None:
    def answer(judge: bool, human: bool | None) -> list[dict[str, Any]]:
        verdicts = [{"adequate": judge, "source": "judge"}]
        said = [] if human is None else [{"adequate": human, "source": "human"}]
        return [{"tier": name, "verdicts": [*verdicts, *said]} for name in TIERS]

    checked = [item(i, attempts=answer(i % 2 == 0, i % 4 == 0)) for i in range(40)]
    alone = item(99, attempts=answer(True, None))
    trusted = build_dataset([alone, *pair()], TIERS)
    measured = build_dataset([alone, *checked], TIERS)
    assert np.isnan(trusted.soft).all()
    assert np.isnan(measured.soft[1:]).all()
    # Right about every bad answer is wrong here: half of what the judge lets pass people refuse.
    assert measured.soft[0] == pytest.approx([0.75, 0.75], abs=0.06)
    np.testing.assert_array_equal(measured.quality[0], [1, 1])


def test_a_log_of_one_tier_is_refused_and_the_silent_one_named() -> None:
    with pytest.raises(DataError, match=r"no outcome is known for the tier large in 2 interactions.*explore or audit"):
        build_dataset([item(1), item(2)], TIERS)
    with pytest.raises(DataError, match="for the tiers medium, large in"):
        build_dataset([item(1)], ("small", "medium", "large"))


def test_features_of_another_release_are_refused() -> None:
    stored = to_stored(featurize(item(1).to_request())).model_copy(update={"schema_hash": "old"})
    with pytest.raises(DataError, match="stored features have the schema old"):
        build_dataset([item(1, features=stored)], TIERS)


def test_a_dataset_cannot_be_changed() -> None:
    data = build_dataset(pair(), TIERS)
    with pytest.raises(AttributeError):
        data.tiers = ("a",)  # type: ignore[misc]
    assert replace(data, simulated=True).simulated


def test_an_audit_in_the_background_names_the_answer_it_ran_beside_and_its_chance(world: Any) -> None:
    live, audit = world.log(2)
    tags = {"beside": live.id, "share": 0.02}
    shadow = audit.model_copy(update={"id": "s", "mode": "shadow", "tags": tags})
    data = build_dataset([live, audit.model_copy(update={"tags": tags}), shadow], TIERS)
    assert data.beside.tolist() == [0, int(data.key[0]), 0]
    assert np.isnan(data.share).tolist() == [True, False, True]
    assert data.share[1] == 0.02
    assert data.settled.all()


def test_asking_again_is_weak_evidence_and_only_as_often_as_answers_are_judged() -> None:
    again = [{"ts": START, "source": "retry", "adequate": False, "key": "retry"}]
    answered = [{"tier": "small"}]
    judged = [item(i, good="small", bad=None) for i in range(400)]
    silent = [item(i, attempts=answered) for i in range(400, 800)]
    retried = [item(i, attempts=answered, feedback=again) for i in range(800, 1200)]
    data = build_dataset([*judged, *silent, *retried, *pair()], TIERS)
    soft = data.soft[800:1200, 0]
    assert np.isnan(data.quality[400:1200, 0]).all()
    assert soft[~np.isnan(soft)] == pytest.approx(1 / 3)
    assert (~np.isnan(soft)).mean() == pytest.approx(0.5, abs=0.08)  # half of the other answers were judged
    assert np.isnan(data.soft[:800]).all()
