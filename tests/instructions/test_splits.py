import itertools
import re
from collections import Counter

import pytest
from helpers.instruction_samples import all_phrasings, longest_literal, make_sampler, training_prompts

from keylm.instructions import topics
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS, HELD_OUT
from keylm.instructions.constraints.start_end import RepeatRequest
from keylm.instructions.splits import SPLITS, held_out


def content_words(text: str) -> set[str]:
    return {word.lower() for word in text.split()}


def test_held_out_topics_share_no_word_with_training() -> None:
    trained = set().union(*(content_words(topics.sample_topic(make_sampler(seed)).name) for seed in range(20_000)))
    asked = set().union(*(content_words(task.topic) for task in held_out(2000, 0) if task.topic))
    assert len(asked) > 300
    assert not asked & trained


def test_held_out_topics_are_in_no_training_prompt() -> None:
    asked = {task.topic.lower() for task in held_out(600, 1) if task.topic}
    assert len(asked) > 200
    assert not [topic for topic in asked if re.search(rf"\b{topic}\b", training_prompts())]


@pytest.mark.parametrize(("constraint_set", "split"), list(itertools.product(CONSTRAINT_SETS, SPLITS)))
def test_held_out_tasks_take_turns(constraint_set: str, split: str) -> None:
    tasks = held_out(720, 0, split, CONSTRAINT_SETS[constraint_set])
    counts = Counter(constraint_type for task in tasks for constraint_type in task.constraint_names)
    asked = set(HELD_OUT if split == "new kinds" else CONSTRAINT_SETS[constraint_set])
    asked -= {RepeatRequest} if split == "multi-turn" else set()
    assert {constraint_type.name for constraint_type in asked} <= set(counts)
    assert max(counts.values()) <= 3 * min(counts.values())
    assert sum(task.topic is not None for task in tasks) > len(tasks) / 2
    only_requests = split in ("new kinds", "typos", "multi-turn")
    assert any(not task.checks for task in tasks) != only_requests


def test_each_split_holds_out_what_it_says() -> None:
    trained = set().union(*(content_words(topics.sample_topic(make_sampler(seed)).name) for seed in range(20_000)))
    for name, split in SPLITS.items():
        if name == "typos":
            continue
        tasks = held_out(400, 0, name)
        asked = set().union(*(content_words(task.topic) for task in tasks if task.topic))
        assert len(asked & trained) == 0 if split.new_words else len(asked & trained) > len(asked) / 2
        phrased = [
            constraint_type.phrasings()
            for task in tasks
            for constraint_type in task.checks
            if isinstance(constraint_type, Constraint)
        ]
        prompts = ["\n".join(each["content"] for each in task.messages).lower() for task in tasks]
        for own in phrased:
            literals = {longest_literal(each) for each in own.held_out}
            assert split.new_phrasings == any(piece in prompt for prompt in prompts for piece in literals)


def test_mistyped_requests_keep_their_topic() -> None:
    tasks = held_out(200, 0, "typos")
    clean = " ".join(request for request in topics.REQUESTS.held_out).lower()
    known = set(re.findall(r"[a-z]{4,}", clean + " ".join(map(str, all_phrasings().values())).lower()))
    typed = [word for task in tasks for word in re.findall(r"[a-z]{4,}", task.messages[0]["content"].lower())]
    wrong = [word for word in typed if word not in known]
    assert 0.1 < len(wrong) / len(typed) < 0.5
    assert all(task.topic.lower() in task.messages[0]["content"].lower() for task in tasks)


def test_multi_turn_constraints_are_in_the_right_turn() -> None:
    tasks = held_out(200, 0, "multi-turn")
    later, still = tasks[::2], tasks[1::2]
    for task in tasks:
        assert [message["role"] for message in task.messages] == ["user", "assistant", "user"]
        (constraint,) = task.checks
        pieces = [longest_literal(each) for each in constraint.phrasings().held_out]
        asked = [any(piece in task.messages[turn]["content"].lower() for piece in pieces) for turn in (0, 2)]
        assert asked == [task in still, task in later]
    for task in still:
        assert task.followed(task.messages[1]["content"]) == [True]
        assert task.topic.lower() not in task.messages[0]["content"].lower()
        assert task.topic.lower() in task.messages[2]["content"].lower()
    assert all(task.topic.lower() in task.messages[0]["content"].lower() for task in later)
