import hashlib
import itertools
import json
import re
from collections import Counter
from functools import cache
from importlib.resources import files
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.instructions import conversations, copy_tasks, mistyped, multi_turn, topics, word_lists
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.catalog import (
    ALL_CONSTRAINTS,
    BASIC_CONSTRAINTS,
    CONSTRAINT_SETS,
    COPYING,
    HELD_OUT,
    TRAINED,
)
from keylm.instructions.constraints.start_end import EndPhrase, RepeatRequest
from keylm.instructions.copy_tasks import COPY_TASKS
from keylm.instructions.generate import generate_conversations
from keylm.instructions.phrasings import Phrasings, with_text
from keylm.instructions.requests import topic_request
from keylm.instructions.sampler import Sampler
from keylm.instructions.splits import SPLITS, held_out
from keylm.instructions.task import Task


def a_sampler(seed: object, held_out: bool = False) -> Sampler:
    return Sampler(Random(str(seed)), new_words=held_out, new_phrasings=held_out)


@cache
def training_prompts() -> str:
    """What the users of training mean: a slip of the finger can make any word, as `ties` of `times`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistyped, "TYPO_PROBABILITY", 0)
        return "\n".join(
            message["content"].lower()
            for document in [*generate_conversations(8000, 7), *generate_conversations(8000, 8, TRAINED)]
            for message in document
            if message["role"] == "user"
        )


# What the data are


def test_a_document_depends_on_seed_and_position_only() -> None:
    assert list(generate_conversations(50, 3)) == list(generate_conversations(80, 3))[:50]
    assert list(generate_conversations(50, 3)) != list(generate_conversations(50, 4))
    assert held_out(40, 3) == held_out(60, 3)[:40]
    assert held_out(40, 3) != held_out(40, 4)


def test_documents_are_conversations_that_the_assistant_ends() -> None:
    for document in generate_conversations(2000, 0):
        assert [message["role"] for message in document] == ["user", "assistant"] * (len(document) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in document)
        assert not any("<|" in message["content"] or "{" in message["content"][1:] for message in document)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("exercise", list(dict.fromkeys(COPY_TASKS)), ids=lambda exercise: exercise.__name__)
def test_exercises_are_answered_from_the_prompt(exercise, held_out: bool) -> None:
    for seed in range(200):
        example = exercise(a_sampler(seed, held_out))
        prompt = " ".join(message["content"] for message in example.task.messages)
        assert example.task.followed(example.answer) == [True]
        assert example.task.followed(prompt) == [False]
        known = set(
            re.findall(r"\w+", f"{prompt} the first last word value of your name is after comes 1 2 3 4 5 6".lower())
        )
        assert set(re.findall(r"\w+", example.answer.lower())) <= known


def test_answers_name_their_topic_first_and_again() -> None:
    for seed in range(1000):
        draw = a_sampler(seed)
        topic = topics.sample_topic(draw)
        said = topics.sample_sentences(topic, 3, draw)
        assert all(topic.name.lower() in sentence.lower() for sentence in said)
        assert len(set(said)) == 3


def test_the_kinds_that_copy_are_asked_for_most() -> None:
    every = CONSTRAINT_SETS["all"]
    assert set(every) == set(TRAINED)
    counts = Counter(every)
    assert {counts[constraint_type] for constraint_type in COPYING} == {3}
    assert {counts[constraint_type] for constraint_type in set(TRAINED) - set(COPYING)} == {1}
    assert held_out(200, 0, constraint_set=every) == held_out(200, 0, constraint_set=TRAINED)


@pytest.mark.parametrize("constraint_set", CONSTRAINT_SETS)
def test_training_has_constraints_in_either_of_two_turns(constraint_set: str) -> None:
    said = [
        [message["content"] for message in document if message["role"] == "user"]
        for document in generate_conversations(2000, 0, CONSTRAINT_SETS[constraint_set])
    ]
    later = [
        prompts for prompts in said if any(prompts[-1].startswith(anew) for anew in multi_turn.REVISION_REQUESTS.train)
    ]
    still = [prompts for prompts in said if any(prompts[0].endswith(keep) for keep in multi_turn.STANDING_ORDERS.train)]
    assert 0.03 < len(later) / len(said) < 0.08
    assert 0.03 < len(still) / len(said) < 0.08
    assert {len(prompts) for prompts in [*later, *still]} == {2}


def test_some_users_mistype_but_not_what_an_answer_is_judged_by() -> None:
    examples = [topic_request(a_sampler(seed), [constraint_type]) for seed, constraint_type in enumerate(20 * TRAINED)]
    typed = [mistyped.maybe_mistype(example, Random(seed)) for seed, example in enumerate(examples)]
    changed = [(old, new) for old, new in zip(examples, typed, strict=True) if new != old]
    assert 0.11 < len(changed) / len(examples) < 0.19
    for old, new in changed:
        assert new.answer == old.answer
        assert new.task.topic == old.task.topic
        assert new.task.topic.lower() in new.task.messages[0]["content"].lower()


def test_documents_are_short_and_topics_many() -> None:
    drawn = [topics.sample_topic(a_sampler(seed)).name for seed in range(20_000)]
    assert len(set(drawn)) > 17_000
    lengths = [
        sum(len(message["content"].split()) for message in document) for document in generate_conversations(2000, 0)
    ]
    assert 20 < sum(lengths) / len(lengths) < 60
    assert max(lengths) < 200


# What is held out


def content_words(text: str) -> set[str]:
    return {word.lower() for word in text.split()}


def test_held_out_topics_are_of_words_that_training_topics_never_hold() -> None:
    trained = set().union(*(content_words(topics.sample_topic(a_sampler(seed)).name) for seed in range(20_000)))
    asked = set().union(*(content_words(task.topic) for task in held_out(2000, 0) if task.topic))
    assert len(asked) > 300
    assert not asked & trained


def test_held_out_topics_are_in_no_training_prompt() -> None:
    asked = {task.topic.lower() for task in held_out(600, 1) if task.topic}
    assert len(asked) > 200
    assert not [topic for topic in asked if re.search(rf"\b{topic}\b", training_prompts())]


def longest_piece(phrasing: str) -> str:
    """The longest stretch of a phrasing without a slot."""
    return max(re.split(r"\{\w*\}", phrasing.lower()), key=len).strip(' \n:.?"')


def all_phrasings() -> dict[str, Phrasings]:
    found = {constraint_type.name: constraint_type.phrasings() for constraint_type in ALL_CONSTRAINTS} | {
        "endings": EndPhrase.endings
    }
    for module in (copy_tasks, topics):
        found |= {name: value for name, value in vars(module).items() if isinstance(value, Phrasings)}
    return found


@pytest.mark.parametrize("phrasings", all_phrasings().values(), ids=all_phrasings())
def test_held_out_phrasings_are_never_said_in_training(phrasings: Phrasings) -> None:
    assert len(set(phrasings.held_out)) >= 2
    assert len(set(phrasings.train)) >= 5
    for phrasing in phrasings.held_out:
        longest = longest_piece(phrasing)
        assert len(longest.split()) > 1
        assert longest not in training_prompts()


def test_requests_are_phrased_in_many_ways() -> None:
    assert len(set(topics.REQUESTS.train)) > 150
    assert len(set(topics.REQUESTS.held_out)) >= 8


@pytest.mark.parametrize(("constraint_set", "split"), list(itertools.product(CONSTRAINT_SETS, SPLITS)))
def test_held_out_tasks_take_the_kinds_in_turn(constraint_set: str, split: str) -> None:
    tasks = held_out(720, 0, split, CONSTRAINT_SETS[constraint_set])
    counts = Counter(constraint_type for task in tasks for constraint_type in task.constraint_names)
    asked = set(HELD_OUT if split == "new kinds" else CONSTRAINT_SETS[constraint_set])
    asked -= {RepeatRequest} if split == "multi-turn" else set()
    assert {constraint_type.name for constraint_type in asked} <= set(counts)
    assert max(counts.values()) <= 3 * min(counts.values())
    assert sum(task.topic is not None for task in tasks) > len(tasks) / 2
    only_requests = split in ("new kinds", "typos", "multi-turn")
    assert any(not task.checks for task in tasks) != only_requests


def test_each_split_is_new_in_its_own_way() -> None:
    trained = set().union(*(content_words(topics.sample_topic(a_sampler(seed)).name) for seed in range(20_000)))
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
            said = {longest_piece(each) for each in own.held_out}
            assert split.new_phrasings == any(piece in prompt for prompt in prompts for piece in said)


def test_a_twentieth_of_the_characters_is_mistyped_but_not_what_an_answer_is_judged_by() -> None:
    tasks = held_out(200, 0, "typos")
    clean = " ".join(request for request in topics.REQUESTS.held_out).lower()
    known = set(re.findall(r"[a-z]{4,}", clean + " ".join(map(str, all_phrasings().values())).lower()))
    typed = [word for task in tasks for word in re.findall(r"[a-z]{4,}", task.messages[0]["content"].lower())]
    wrong = [word for word in typed if word not in known]
    assert 0.1 < len(wrong) / len(typed) < 0.5
    assert all(task.topic.lower() in task.messages[0]["content"].lower() for task in tasks)


def test_the_constraint_stands_in_the_second_turn_or_still_holds_from_the_first() -> None:
    tasks = held_out(200, 0, "multi-turn")
    later, still = tasks[::2], tasks[1::2]
    for task in tasks:
        assert [message["role"] for message in task.messages] == ["user", "assistant", "user"]
        (constraint,) = task.checks
        pieces = [longest_piece(each) for each in constraint.phrasings().held_out]
        asked = [any(piece in task.messages[turn]["content"].lower() for piece in pieces) for turn in (0, 2)]
        assert asked == [task in still, task in later]
    for task in still:
        assert task.followed(task.messages[1]["content"]) == [True]
        assert task.topic.lower() not in task.messages[0]["content"].lower()
        assert task.topic.lower() in task.messages[2]["content"].lower()
    assert all(task.topic.lower() in task.messages[0]["content"].lower() for task in later)


@pytest.mark.parametrize(
    "constraint_type",
    [constraint_type for constraint_type in TRAINED if constraint_type is not RepeatRequest],
    ids=lambda constraint_type: constraint_type.name,
)
def test_either_turn_has_an_answer_that_follows(constraint_type: type[Constraint]) -> None:
    for turn in (multi_turn.added_constraint, multi_turn.carried_over_constraint):
        for seed in range(10):
            example = turn(constraint_type, a_sampler(seed, held_out=True))
            assert example.task.followed(example.answer) == [True]
            assert example.task.names_topic(example.answer) or constraint_type.name in (
                "all capitals",
                "JSON with a key",
            )


def test_new_kinds_are_never_trained() -> None:
    assert len(HELD_OUT) >= 8
    assert not set(HELD_OUT) & {*BASIC_CONSTRAINTS, *TRAINED}
    assert len(TRAINED) >= 40


def test_training_asks_for_every_kind_of_its_set() -> None:
    """Every constraint leaves a piece of one of its phrasings in the prompts."""
    for constraint_type in TRAINED:
        pieces = {longest_piece(each) for each in constraint_type.phrasings().train}
        assert any(piece in training_prompts() for piece in pieces), constraint_type.name


def test_the_basic_documents_stay_what_the_quickstart_was_measured_on() -> None:
    text = json.dumps(list(generate_conversations(500, 0)))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "35fa513cb8fba1b4d3dd52a95e3f3f8842d2e9e9764e53a39e4c1ca00ca3f508"
    )


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1))
def test_singular_and_plural_share_one_fate(word: str) -> None:
    assert (
        word_lists.is_held_out_word(word)
        == word_lists.is_held_out_word(word + "s")
        == word_lists.is_held_out_word(word.upper())
    )


def test_a_fifth_of_every_word_list_is_held_out() -> None:
    for name in ("nouns", "modifiers", "words", "first_names", "places"):
        kept, held = word_lists.word_list(name, False), word_lists.word_list(name, True)
        assert not set(kept) & set(held)
        listed = (files("keylm.instructions") / f"{name}.txt").read_text(encoding="utf-8").split()
        assert 0.1 < len(held) / len(set(listed)) < 0.3


# What else is judged


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            copy_tasks.AnyOf("", ("The word is sea.", "sea")),
            ["the word is SEA", " Sea. "],
            ["sea sea", "the sea", "lake"],
        ),
        (copy_tasks.Verbatim("", "- sea\n- lake"), ["- sea\n- lake\n"], ["- Sea\n- lake", "- sea - lake", "- sea"]),
    ],
)
def test_exercises_allow_for_little(check, good: list[str], bad: list[str]) -> None:
    assert all(check.check(answer) for answer in good)
    assert not any(check.check(answer) for answer in [*bad, ""])


def test_the_topic_is_found_in_any_case_and_across_lines() -> None:
    task = Task([], "green olives")
    assert all(map(task.names_topic, ["Green olives!", "GREEN OLIVES", "Some green\nolives."]))
    assert not any(map(task.names_topic, ["Olives are green.", "green", ""]))
    assert not Task([], None).names_topic("green olives")


def test_small_talk_says_who_speaks() -> None:
    assert all("KeyLM" in answer for answer in conversations.IDENTITY_ANSWERS)


def test_requests_can_be_put_before_or_after_a_text() -> None:
    assert with_text("copy this", "what is first?") == (
        "copy this:\n{text}",
        'copy this: "{text}"',
        "copy this: {text}",
        "{text}\nCopy this.",
        "what is first?\n{text}",
        'what is first? "{text}"',
        "what is first? {text}",
        "{text}\nWhat is first?",
    )
