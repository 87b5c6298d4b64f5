import importlib
import itertools
import os
import re
from collections import Counter
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.data.instructions import (
    Task,
    constraints,
    conversations,
    exercises,
    generate,
    held_out,
    sampler,
    topical,
    topics,
    words,
)
from keylm.data.instructions.constraints import KINDS, Constraint, compatible, count_sentences
from keylm.data.instructions.exercises import EXERCISES
from keylm.data.instructions.sampler import Phrasings, Sampler

OLIVES = topics.Topic("green olives", "things")
BY_KIND = {kind.kind: kind for kind in KINDS}


def a_sampler(seed: object, held_out: bool = False) -> Sampler:
    return Sampler(Random(str(seed)), held_out)


@cache
def training_prompts() -> str:
    return "\n".join(
        message["content"].lower()
        for document in generate(8000, 7)
        for message in document
        if message["role"] == "user"
    )


# What the data are


def test_a_document_depends_on_seed_and_position_only() -> None:
    assert list(generate(50, 3)) == list(generate(80, 3))[:50]
    assert list(generate(50, 3)) != list(generate(50, 4))
    assert held_out(40, 3) == held_out(60, 3)[:40]
    assert held_out(40, 3) != held_out(40, 4)


def test_documents_are_conversations_that_the_assistant_ends() -> None:
    for document in generate(2000, 0):
        assert [message["role"] for message in document] == ["user", "assistant"] * (len(document) // 2)
        assert all(message["content"].strip() == message["content"] != "" for message in document)
        assert not any("<|" in message["content"] or "{" in message["content"][1:] for message in document)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_answers_follow_their_instruction(kind: type[Constraint], held_out: bool) -> None:
    for seed in range(200):
        example = topical(a_sampler(seed, held_out), [kind])
        assert example.task.kinds == [kind.kind]
        assert example.task.followed(example.answer) == [True]
        assert example.task.names_topic(example.answer)


@pytest.mark.parametrize(
    "pair", list(itertools.combinations(KINDS, 2)), ids=lambda pair: f"{pair[0].kind}, {pair[1].kind}"
)
def test_answers_follow_two_instructions_at_once(pair: tuple[type[Constraint], type[Constraint]]) -> None:
    for seed in range(8):
        example = topical(a_sampler(seed), list(pair))
        assert len(example.task.checks) == 1 + compatible(*pair)
        assert all(example.task.followed(example.answer))


def test_most_kinds_go_together() -> None:
    pairs = list(itertools.combinations(KINDS, 2))
    assert sum(compatible(*pair) for pair in pairs) > len(pairs) / 2
    assert all(compatible(*pair) == compatible(*reversed(pair)) for pair in pairs)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("exercise", list(dict.fromkeys(EXERCISES)), ids=lambda exercise: exercise.__name__)
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
        said = topics.sentences(topic, 3, draw)
        assert all(topic.name.lower() in sentence.lower() for sentence in said)
        assert len(set(said)) == 3


def test_documents_are_short_and_topics_many() -> None:
    drawn = [topics.sample_topic(a_sampler(seed)).name for seed in range(20_000)]
    assert len(set(drawn)) > 17_000
    lengths = [sum(len(message["content"].split()) for message in document) for document in generate(2000, 0)]
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


def all_phrasings() -> dict[str, Phrasings]:
    found = {kind.kind: kind.phrasings for kind in KINDS} | {"endings": constraints.EndPhrase.endings}
    for module in (exercises, topics):
        found |= {name: value for name, value in vars(module).items() if isinstance(value, Phrasings)}
    return found


@pytest.mark.parametrize("phrasings", all_phrasings().values(), ids=all_phrasings())
def test_held_out_phrasings_are_never_said_in_training(phrasings: Phrasings) -> None:
    assert len(set(phrasings.held_out)) >= 2
    assert len(set(phrasings.train)) >= 5
    for phrasing in phrasings.held_out:
        longest = max(re.split(r"\{\w*\}", phrasing.lower()), key=len).strip(' \n:.?"')
        assert len(longest.split()) > 1
        assert longest not in training_prompts()


def test_requests_are_phrased_in_many_ways() -> None:
    assert len(set(topics.REQUESTS.train)) > 150
    assert len(set(topics.REQUESTS.held_out)) >= 8


def test_held_out_tasks_take_the_kinds_in_turn() -> None:
    tasks = held_out(720, 0)
    counts = Counter(kind for task in tasks for kind in task.kinds)
    assert set(BY_KIND) <= set(counts)
    assert max(counts.values()) <= 3 * min(counts.values())
    assert sum(task.topic is not None for task in tasks) > len(tasks) / 2
    assert any(not task.checks for task in tasks)


@given(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1))
def test_singular_and_plural_share_one_fate(word: str) -> None:
    assert words.is_held_out(word) == words.is_held_out(word + "s") == words.is_held_out(word.upper())


def test_a_fifth_of_every_word_list_is_held_out() -> None:
    for name in ("nouns", "modifiers", "words", "first_names", "places"):
        kept, held = words.words(name, False), words.words(name, True)
        assert not set(kept) & set(held)
        listed = (files("keylm.data.instructions") / f"{name}.txt").read_text(encoding="utf-8").split()
        assert 0.1 < len(held) / len(set(listed)) < 0.3


# What the checks mean, by hand

CASES: list[tuple[Constraint, list[str], list[str]]] = [
    (constraints.Keywords(("lamp", "sea")), ["A LAMP by the seaside."], ["A lamp.", "The sea."]),
    (constraints.Frequency("lamp", 2), ["Lamp and lamps."], ["A lamp."]),
    (constraints.Forbidden("lamp"), ["Two lamps."], ["A lamp.", "LAMP!"]),
    (constraints.Sentences(2), ["One. Two!", "Is it 3.5? Yes."], ["One.", "One. Two. Three."]),
    (constraints.MaxWords(3), ["One, two three."], ["One two three four."]),
    (constraints.Bullets(2), ["- a\n- b", "So:\n* a\n* b"], ["- a", "- a\n- b\n- c", "a\nb"]),
    (constraints.NumberedList(2), ["1. a\n2. b", "1) a\n2) b"], ["1. a", "2. a\n1. b", "1. a\n2. b\n3. c", "- a\n- b"]),
    (constraints.Paragraphs(2), ["a\n***\nb", "***\na\n***\nb"], ["a\n\nb", "a\n***\n***\nb", "a\n***\nb\n***\nc"]),
    (constraints.Highlights(2), ["*a* and *b*", "**a** and *b*"], ["*a* and b", "* * and * *"]),
    (constraints.Title(), ["<<a>>\nText.", "Text.\n<<a>>"], ["<a>", "<<>>", "<< >>", "<<a\n>>"]),
    (constraints.StartPhrase("Sea lamp"), ["Sea lamp: yes.", " sea lamp"], ["The sea lamp."]),
    (constraints.EndPhrase("Ask me."), ["So. Ask me.", '"So. ASK ME."'], ["Ask me. So.", "Ask me"]),
    (constraints.Postscript("P.S."), ["So.\nP.S. Hm.", "p. s. hm"], ["PS hm"]),
    (constraints.Postscript("P.P.S"), ["So.\nP.P.S hm"], ["So.\nP.S. Hm."]),
    (constraints.RepeatRequest("Say hi."), ["Say hi.\nHi.", "SAY HI. Hi."], ["Hi.\nSay hi.", "Say hi"]),
    (constraints.NoCommas(), ["One two."], ["One, two."]),
    (constraints.Lowercase(), ["one 2."], ["One.", "ONE.", "12."]),
    (constraints.Uppercase(), ["ONE 2."], ["One.", "one.", "12."]),
    (
        constraints.Json("lamp"),
        ['{"lamp": 1}', '```json\n{"lamp": "a"}\n```'],
        ['{"a": "lamp"}', '["lamp"]', "{lamp: 1}"],
    ),
    (constraints.Quotation(), ['"a"', ' "a b." '], ['"a', "a", "'a'", '"']),
]


@pytest.mark.parametrize(("constraint", "good", "bad"), CASES, ids=[case[0].kind for case in CASES])
def test_checks_mean_what_they_say(constraint: Constraint, good: list[str], bad: list[str]) -> None:
    task = Task([], None, (constraint,))
    assert [answer for answer in good if task.followed(answer) != [True]] == []
    assert [answer for answer in [*bad, "", " \n"] if task.followed(answer) != [False]] == []


def test_every_kind_has_a_case_by_hand() -> None:
    assert {type(constraint) for constraint, _, _ in CASES} == set(KINDS)


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            exercises.Exactly("", ("The word is sea.", "sea")),
            ["the word is SEA", " Sea. "],
            ["sea sea", "the sea", "lake"],
        ),
        (exercises.Verbatim("", "- sea\n- lake"), ["- sea\n- lake\n"], ["- Sea\n- lake", "- sea - lake", "- sea"]),
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
    assert all("KeyLM" in answer for answer in conversations.WHO_ANSWERS)


def test_requests_can_be_put_before_or_after_a_text() -> None:
    assert sampler.with_text("copy this", "what is first?") == (
        "copy this:\n{text}",
        'copy this: "{text}"',
        "copy this: {text}",
        "{text}\nCopy this.",
        "what is first?\n{text}",
        'what is first? "{text}"',
        "what is first? {text}",
        "{text}\nWhat is first?",
    )


# The same kinds in lm_eval's IFEval


@pytest.fixture(scope="module")
def ifeval():
    """lm_eval's checkers, with nltk's data from the shared folder where there is one."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    nltk.data.path.insert(0, str(Path(os.environ.get("KEYLM_SHARED", "")) / "eval" / "nltk_data"))
    return importlib.import_module("lm_eval.tasks.ifeval.instructions")


def some_answers() -> list[str]:
    """Answers to all kinds, the prompts themselves, and pieces of both."""
    examples = [topical(a_sampler(f"answers {seed}"), [kind]) for seed in range(6) for kind in KINDS]
    texts = [text for example in examples for text in (example.answer, example.task.messages[0]["content"])]
    return [
        *texts,
        *(text[: len(text) // 2] for text in texts),
        *(text.upper() for text in texts[:40]),
        "*a\n***",
        "12",
    ]


SAME_KINDS = {
    "KeywordChecker": (constraints.Keywords, lambda own: {"keywords": list(own.words)}),
    "KeywordFrequencyChecker": (
        constraints.Frequency,
        lambda own: {"keyword": own.word, "frequency": own.times, "relation": "at least"},
    ),
    "ForbiddenWords": (constraints.Forbidden, lambda own: {"forbidden_words": [own.word]}),
    "NumberOfWords": (constraints.MaxWords, lambda own: {"num_words": own.limit + 1, "relation": "less than"}),
    "BulletListChecker": (constraints.Bullets, lambda own: {"num_bullets": own.count}),
    "ParagraphChecker": (constraints.Paragraphs, lambda own: {"num_paragraphs": own.count}),
    "HighlightSectionChecker": (constraints.Highlights, lambda own: {"num_highlights": own.count}),
    "TitleChecker": (constraints.Title, lambda own: {}),
    "EndChecker": (constraints.EndPhrase, lambda own: {"end_phrase": own.ending}),
    "PostscriptChecker": (constraints.Postscript, lambda own: {"postscript_marker": own.marker}),
    "RepeatPromptThenAnswer": (constraints.RepeatRequest, lambda own: {"prompt_to_repeat": own.request}),
    "CommaChecker": (constraints.NoCommas, lambda own: {}),
    "QuotationChecker": (constraints.Quotation, lambda own: {}),
}


@pytest.mark.parametrize("name", SAME_KINDS)
def test_checks_agree_with_lm_eval(ifeval, name: str) -> None:
    kind, arguments = SAME_KINDS[name]
    answers, seen = some_answers(), set()
    for seed in range(12):
        example = topical(a_sampler(f"check {seed}"), [kind])
        (own,) = example.task.checks
        theirs = getattr(ifeval, name)(name)
        theirs.build_description(**arguments(own))
        for answer in [example.answer, *answers]:
            assert own.check(answer) == theirs.check_following(answer), (own, answer)
            seen.add(own.check(answer))
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LowercaseLettersEnglishChecker", constraints.Lowercase),
        ("CapitalLettersEnglishChecker", constraints.Uppercase),
    ],
)
def test_cases_agree_with_lm_eval_on_english(ifeval, name: str, kind: type[Constraint]) -> None:
    own, theirs = kind(), getattr(ifeval, name)(name)
    answers = some_answers()
    assert not [answer for answer in answers if theirs.check_following(answer) and not own.check(answer)]
    english = "there is a lot to say about green olives, and people in every village have something to say."
    assert theirs.check_following(english) == own.check(english)
    assert theirs.check_following(english.upper()) == own.check(english.upper())


def test_json_is_json_to_lm_eval(ifeval) -> None:
    own, theirs = constraints.Json("lamp"), ifeval.JsonFormat("json")
    for answer in [
        '{"lamp": "a"}',
        '```json\n{"lamp": "a"}\n```',
        "{lamp}",
        "lamp",
        '{"lamp": "a"',
        "```",
        '{"sea": 1}',
    ]:
        assert own.check(answer) == (theirs.check_following(answer) and '"lamp"' in answer)


def test_sentences_are_counted_as_lm_eval_counts_them(ifeval, shared: Path) -> None:
    for seed in range(150):
        draw = a_sampler(seed)
        answer = " ".join(topics.sentences(topics.sample_topic(draw), draw.number(1, 4), draw))
        assert count_sentences(answer) == ifeval.instructions_util.count_sentences(answer)
