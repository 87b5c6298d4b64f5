import hashlib
import json

import pytest
from helpers.instruction_samples import longest_literal, make_sampler, training_prompts

from keylm.instructions import multi_turn, topics
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS, TRAINED
from keylm.instructions.generate import generate_conversations
from keylm.instructions.splits import held_out


def test_a_document_depends_on_seed_and_index_only() -> None:
    assert list(generate_conversations(50, 3)) == list(generate_conversations(80, 3))[:50]
    assert list(generate_conversations(50, 3)) != list(generate_conversations(50, 4))
    assert held_out(40, 3) == held_out(60, 3)[:40]
    assert held_out(40, 3) != held_out(40, 4)


def test_documents_are_whole_conversations() -> None:
    for document in generate_conversations(2000, 0):
        assert [message["role"] for message in document] == ["user", "assistant"] * (len(document) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in document)
        assert not any("<|" in message["content"] or "{" in message["content"][1:] for message in document)


@pytest.mark.parametrize("constraint_set", CONSTRAINT_SETS)
def test_training_has_constraints_in_both_turns(constraint_set: str) -> None:
    conversations = [
        [message["content"] for message in document if message["role"] == "user"]
        for document in generate_conversations(2000, 0, CONSTRAINT_SETS[constraint_set])
    ]
    added = [prompts for prompts in conversations if prompts[-1].startswith(multi_turn.REVISION_REQUESTS.train)]
    carried_over = [prompts for prompts in conversations if prompts[0].endswith(multi_turn.STANDING_ORDERS.train)]
    assert 0.03 < len(added) / len(conversations) < 0.08
    assert 0.03 < len(carried_over) / len(conversations) < 0.08
    assert {len(prompts) for prompts in [*added, *carried_over]} == {2}


def test_documents_are_short_and_topics_many() -> None:
    drawn = [topics.sample_topic(make_sampler(seed)).name for seed in range(20_000)]
    assert len(set(drawn)) > 17_000
    lengths = [
        sum(len(message["content"].split()) for message in document) for document in generate_conversations(2000, 0)
    ]
    assert 20 < sum(lengths) / len(lengths) < 60
    assert max(lengths) < 200


def test_training_asks_for_every_constraint() -> None:
    """Every constraint leaves a piece of one of its phrasings in the prompts."""
    for constraint_type in TRAINED:
        pieces = {longest_literal(each) for each in constraint_type.phrasings().train}
        assert any(piece in training_prompts() for piece in pieces), constraint_type.name


def test_the_basic_documents_are_pinned() -> None:
    text = json.dumps(list(generate_conversations(500, 0)))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "35fa513cb8fba1b4d3dd52a95e3f3f8842d2e9e9764e53a39e4c1ca00ca3f508"
    )
