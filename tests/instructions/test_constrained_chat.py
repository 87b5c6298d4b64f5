import re
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.common.documents import Document
from keylm.data.sources.files import read_files
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.registry import read_source
from keylm.instructions.constrained_chat import constrain, generate_constrained_chat, prose_sentences
from keylm.instructions.constraints.base import Constraint, count_words
from keylm.instructions.constraints.catalog import (
    CHAT_CONSTRAINTS,
    FREQUENT,
    TRAINED,
    Bullets,
    EndPhrase,
    FewerSentences,
    FirstWordOfParagraph,
    Frequency,
    Highlights,
    Keywords,
    LetterAtLeast,
    MaxWords,
    MinSentences,
    MinWords,
    NoCommas,
    Placeholders,
    RepeatRequest,
    Sections,
    Sentences,
)
from keylm.instructions.content_words import content_words, extract_subject
from keylm.instructions.rejected import make_rejected
from keylm.recipe.sources import ConstrainedChatConfig, FilesConfig

ANSWER = (
    "Honey bees live in large colonies with one queen. The workers gather nectar, pollen and water from flowers. "
    "They turn the nectar into honey and store it in wax combs! A worker that has found flowers dances in the dark. "
    "The others follow her dance and learn the way from it. Then they fly straight to the same place. "
    "Each of them lives for only a few weeks. Do they sleep in winter? "
    "In the cold months the bees stay close together around their queen. Honey keeps them alive until spring."
)
USUAL = ANSWER.partition(" Each of them")[0]
"""The six sentences of it that answer a request without a length."""


def exchange(answer: str = ANSWER, request: str = "How do honey bees live?", salt: str = "") -> Document:
    system = {"role": "system", "content": f"You know much. {salt}"}
    return Document(messages=(system, {"role": "user", "content": request}, {"role": "assistant", "content": answer}))


def many(num: int = 400, constraint_set=TRAINED):
    return [example for salt in range(num) if (example := constrain(exchange(salt=str(salt)), 0, constraint_set))]


def test_answers_follow_one_to_five_constraints() -> None:
    examples = many()
    assert len(examples) > 300
    assert {len(example.task.checks) for example in examples} == {1, 2, 3, 4, 5}
    assert all(all(example.task.followed(example.answer)) for example in examples)


def test_the_request_and_what_was_said_before_stay() -> None:
    for example in many(100):
        first, last = example.task.messages
        assert first["content"].startswith("You know much.")
        assert "how do honey bees live" in last["content"].lower()
        assert len(last["content"]) > len("How do honey bees live?") + 8


def test_the_answer_keeps_the_words_of_the_real_one() -> None:
    """What is added is a title, a mark, a closing phrase: most of what is left is the answer's own."""
    own = set(re.findall(r"\w+", ANSWER.lower()))
    for example in many(200):
        words = re.findall(r"[^\W\d_]+", example.answer.lower())
        assert sum(word in own for word in words) > 0.55 * len(words), example.answer


@pytest.mark.parametrize(
    "constraint_type",
    [constraint_type for constraint_type in TRAINED if constraint_type.applies_to_real],
    ids=lambda constraint_type: constraint_type.name,
)
def test_every_applicable_constraint_is_used(constraint_type: type[Constraint]) -> None:
    if constraint_type is NoCommas:
        examples = [
            example
            for salt in range(30)
            if (example := constrain(exchange(ANSWER.replace(",", ""), salt=str(salt)), 0, [constraint_type]))
        ]
    else:
        examples = many(30, [constraint_type])
    assert examples
    assert all(example.task.constraint_names == [constraint_type.name] for example in examples)


def test_words_that_the_beginning_lacks_are_worked_in_behind_it() -> None:
    """Some requests ask for words of the first sentence, most for any words."""
    documents = [exchange(request="What do they do all year?", salt=str(salt)) for salt in range(100)]
    assert 5 < sum(constrain(document, 0, [Keywords]).answer == USUAL for document in documents) < 30
    first, rest = USUAL.split(". ", 1)
    for constraint_type in (Keywords, Frequency):
        answers = [example.answer for example in many(60, [constraint_type])]
        assert all(answer.startswith(f"{first}. ") and answer.endswith(rest) for answer in answers)


def test_only_a_request_for_a_length_gets_a_long_answer() -> None:
    usual = [example for example in many(300) if not any(check.asks_for_length for check in example.task.checks)]
    assert not [example for example in usual if "in winter" in example.answer.lower()]
    assert {example.answer for example in many(100, [MinWords])} == {ANSWER}


def test_an_answer_that_says_little_at_first_is_left_out() -> None:
    """The words to ask for are drawn from the sentences that are kept."""
    late = "It was so. " * 6 + "Copper lanterns glow in the harbor every evening."
    assert not [example for salt in range(50) if (example := constrain(exchange(late, salt=str(salt)), 0))]


def test_a_word_is_written_as_the_user_writes_it() -> None:
    """Within quotation marks a word has other tokens, and a small model copies tokens."""
    for example in many(100, [Keywords]):
        asked = example.task.messages[-1]["content"]
        for word in example.task.checks[0].words:
            if word not in ANSWER:
                is_quoted = f'"{word}"' in asked or f"'{word}'" in asked
                assert (f'"{word}"' in example.answer) == is_quoted


def test_placeholders_are_more_than_asked_for() -> None:
    examples = many(100, [Placeholders])
    counts = {(example.task.checks[0].count, len(re.findall(r"\[", example.answer))) for example in examples}
    assert counts == {(count, count + 2) for count in range(1, 7)}


def test_highlights_leave_bullets_whole() -> None:
    answers = [example.answer for example in many(100, [Bullets, Highlights]) if len(example.task.checks) == 2]
    assert answers
    assert all(re.match(r"[-*] \*\w", line) for answer in answers for line in answer.splitlines())


def test_an_answer_can_be_asked_to_end_as_it_does_or_with_any_phrase() -> None:
    examples = many(200, [EndPhrase])
    endings = {example.task.checks[0].ending for example in examples}
    assert {"Then they fly straight to the same place.", "Then they fly straight to the same place"} <= endings
    assert len(endings) > 40
    first_two = " ".join(prose_sentences(ANSWER)[:2])
    cut = [example for example in examples if example.answer == f"{first_two} {example.task.checks[0].ending}"]
    assert cut == examples, "a phrase that ends an answer stands behind two sentences"


def test_a_term_of_two_words_can_be_asked_for() -> None:
    examples = many(100, [Keywords])
    terms = {word for example in examples for word in example.task.checks[0].words if " " in word}
    assert len(terms) > 5
    assert any(f'"{term}"' in example.answer for term in terms for example in examples)


def test_the_end_of_a_list_has_a_line_of_its_own() -> None:
    examples = [example for example in many(100, [Bullets, EndPhrase]) if len(example.task.checks) == 2]
    lines = [example.answer.splitlines() for example in examples]
    assert lines
    endings = [check.ending for example in examples for check in example.task.checks if check.name == EndPhrase.name]
    assert [last for *_, last in lines] == endings


def test_paragraphs_begin_with_an_opening_or_with_any_word() -> None:
    asked = [example.task.checks[0].word for example in many(200, [FirstWordOfParagraph])]
    assert 70 < sum(word.istitle() for word in asked) < 130, "half of the words are given with a capital"
    words = [word.lower() for word in asked]
    repeated = {word for word in words if words.count(word) > 2}
    assert len(set(words)) > 60
    assert 10 < len(repeated) < 25, "nineteen openings are drawn half of the time"
    assert {example.task.checks[0].position for example in many(200, [FirstWordOfParagraph])} == {1, 2, 3, 4, 5}
    answers = "\n".join(example.answer for example in many(200, [FirstWordOfParagraph]))
    continued = set(re.findall(r"^\w+, (\w+)", answers, re.MULTILINE))
    assert continued >= {"Honey", "the", "they", "a"}, "what may be a name stays as it is"
    assert not continued & {"The", "They", "A"}


def test_lengths_leave_room() -> None:
    """An answer that is a sentence too short or too long still follows what is asked of a real one."""
    num_words = count_words(ANSWER)
    least = [example.task.checks[0].count for example in many(200, [MinWords])]
    assert (min(least), max(least)) == (num_words // 3 // 5 * 5, num_words // 5 * 5)
    first = prose_sentences(ANSWER)[0]
    limited = many(200, [MaxWords])
    limits = [example.task.checks[0].count for example in limited]
    assert 2 * count_words(first) <= min(limits) < 30
    assert 1.8 * num_words < max(limits) <= 2 * num_words + 5
    assert all(count_words(example.answer) <= min(60, example.task.checks[0].count / 2) for example in limited)
    few = many(200, [FewerSentences])
    assert {(example.task.checks[0].count, len(prose_sentences(example.answer))) for example in few} == {
        (3, 2), (4, 2), (5, 3), (6, 3), (7, 4), (8, 4), (9, 4), (10, 4)
    }  # fmt: skip
    letters = [example.task.checks[0] for example in many(200, [LetterAtLeast])]
    assert all(USUAL.lower().count(check.letter) // 2 <= check.times for check in letters if check.times > 1)


def test_the_topic_is_the_subject_if_the_answer_names_it() -> None:
    topics = Counter(
        constrain(exchange(request="Describe honey bees.", salt=str(salt)), 0, CHAT_CONSTRAINTS).task.topic
        for salt in range(100)
    )
    assert topics["honey bees"] > 85
    unnamed = constrain(exchange("They live in large colonies. Workers gather nectar and sweet pollen."), 0, [MaxWords])
    assert unnamed is not None
    assert unnamed.task.topic is None


def test_lengths_can_be_asked_for_beside_parts() -> None:
    """Where both are asked of an invented answer, no order of application satisfies both in general."""
    examples = many(200, [Bullets, MinWords, EndPhrase])
    combinations = {frozenset(example.task.constraint_names) for example in examples}
    assert {Bullets.name, MinWords.name, EndPhrase.name} in combinations


def test_lower_bounds_and_parts_are_asked_of_long_answers() -> None:
    """Of short ones, small numbers only could be asked for, and a long text would be as likely without the request."""
    short = "Honey bees live in large colonies with one queen. The workers gather nectar and pollen from flowers."
    for constraint_type in (MinWords, MinSentences, Bullets, Sections, Highlights):
        assert constrain(exchange(short), 0, [constraint_type]) is None
    answers = [example.answer for example in many(100, [Highlights])]
    assert all(answer.count("*") == 2 * len(prose_sentences(USUAL)) for answer in answers)


def test_all_labels_of_sections_can_be_given() -> None:
    asked = [example.task.messages[-1]["content"].lower() for example in many(200, [Sections])]
    assert any(re.search(r"\b(\w+) 1, \1 2 and \1 3\b", text) for text in asked)


def test_frequent_constraints_are_drawn_more_often() -> None:
    drawn = Counter(name for example in many(600, CHAT_CONSTRAINTS) for name in example.task.constraint_names)
    frequent = sum(drawn[constraint_type.name] for constraint_type in FREQUENT)
    assert frequent > 0.6 * drawn.total()


def test_few_sentences_with_commas_are_dropped() -> None:
    (example,) = [constrain(exchange(), 0, [NoCommas])]
    assert example is not None
    assert example.answer == USUAL.replace("The workers gather nectar, pollen and water from flowers. ", "")
    assert (
        constrain(exchange("Bees, who live in hives, gather nectar. They sleep, it seems, in winter."), 0, [NoCommas])
        is None
    )


def test_something_of_the_answer_is_always_left() -> None:
    """Sentences with commas would go, and the repeated request alone would pass."""
    commas = "Bees, who live in hives, gather nectar. They sleep, it seems, in winter."
    examples = [constrain(exchange(commas, salt=str(salt)), 0, [NoCommas, RepeatRequest]) for salt in range(40)]
    assert {tuple(example.task.constraint_names) for example in examples if example} == {(RepeatRequest.name,)}


def test_numbers_of_parts_can_be_spelled_out() -> None:
    long = " ".join(f"Bees of hive {letter} gather nectar." for letter in "abcdefghijklmnopqrstuvwxyz")
    largest = {FewerSentences: 10, MinSentences: 10, Sentences: 8, Bullets: 8}
    for constraint_type, count in largest.items():
        examples = [constrain(exchange(long, salt=str(salt)), 0, [constraint_type]) for salt in range(60)]
        assert max(example.task.checks[0].count for example in examples if example) == count


def test_long_requests_are_not_repeated() -> None:
    assert constrain(exchange(), 0, [RepeatRequest]) is not None
    assert constrain(exchange(request="Read this.\n" + ANSWER), 0, [RepeatRequest]) is None


def test_the_result_depends_on_exchange_and_seed_only() -> None:
    documents = [exchange(salt=str(salt)) for salt in range(20)]
    assert list(generate_constrained_chat(documents, 1)) == list(generate_constrained_chat(list(documents), 1))
    assert list(generate_constrained_chat(documents, 1)) != list(generate_constrained_chat(documents, 2))
    assert (
        list(generate_constrained_chat(documents[5:], 1))
        == list(generate_constrained_chat(documents, 1))[-len(list(generate_constrained_chat(documents[5:], 1))) :]
    )


@pytest.mark.parametrize(
    "answer",
    [
        "- one\n- two",
        "Use `ls` for it.",
        "He met Mr. Smith at the bridge.",
        "no capital letter here.",
        "No full stop here",
        "See https://example.org for bees.",
        "word " * 301 + ".",
        "",
    ],
)
def test_what_is_not_plain_prose_is_left_alone(answer: str) -> None:
    assert prose_sentences(answer) == ()
    assert constrain(exchange(answer), 0) is None


def test_some_users_mistype_but_keep_the_keywords() -> None:
    documents = [exchange(salt=str(salt)) for salt in range(300)]
    plain = [example for document in documents if (example := constrain(document, 0))]
    typed = [document.messages for document in generate_constrained_chat(documents, 0)]
    pairs = list(zip(plain, typed, strict=True))
    mistyped = [(example, messages) for example, messages in pairs if messages[1] != example.task.messages[1]]
    assert 0.08 < len(mistyped) / len(pairs) < 0.22
    for example, messages in pairs:
        assert (messages[0], messages[2]["content"]) == (example.task.messages[0], example.answer)
    for example, messages in mistyped:
        asked = messages[1]["content"].lower()
        words = [word for check in example.task.checks if isinstance(check, Keywords) for word in check.words]
        assert all(word in asked for word in words)


def test_real_answers_have_more_parts() -> None:
    counts = {example.task.checks[0].count for example in many(60, [Bullets])}
    assert max(counts) > Bullets.counts[1]


def test_text_and_unfinished_chats_are_left_out() -> None:
    question = {"role": "user", "content": "How do honey bees live?"}
    assert list(generate_constrained_chat([Document(text=ANSWER), Document(messages=(question,))], 0)) == []


@given(st.lists(st.sampled_from(["The sea is old.", "Is it deep?", "So it is!"]), min_size=1, max_size=8))
def test_prose_is_cut_into_its_sentences(sentences: list[str]) -> None:
    assert list(prose_sentences(" ".join(sentences))) == sentences == list(prose_sentences("\n".join(sentences)))


@pytest.mark.parametrize(
    ("request_", "about"),
    [
        ("What does classical liberalism mean?", "classical liberalism"),
        ("Tell me about Greyhound Bus Station.", "Greyhound Bus Station"),
        ("What is it?", ""),
    ],
)
def test_the_subject_of_a_request(request_: str, about: str) -> None:
    assert extract_subject(request_) == about


def test_content_words_are_the_most_frequent_first() -> None:
    assert content_words("The sea, the lamp and the lamp about which they sing.") == ["lamp", "sing"]


def test_a_source_of_real_exchanges(shared: Path) -> None:
    path = str(shared / "text" / "instr_wikipedia_leads.jsonl.zst")
    source = ConstrainedChatConfig(name="verified", from_source=FilesConfig(name="leads", path=path), max_documents=50)
    documents = list(read_source(source, 3))
    originals = {
        document.messages[-1]["content"] for document in islice(read_files(source.from_source, ReadProgress()), 200)
    }
    assert len(documents) == 50
    assert all(document.messages[-1]["role"] == "assistant" for document in documents)
    assert sum(document.messages[-1]["content"] in originals for document in documents) < 25


def test_real_answers_have_rejected_versions(shared: Path) -> None:
    path = str(shared / "text" / "instr_wikipedia_leads.jsonl.zst")
    documents = islice(read_files(FilesConfig(name="leads", path=path), ReadProgress()), 300)
    examples = [example for document in documents if (example := constrain(document, 0))]
    rejected = [make_rejected(example, Random(seed)) for seed, example in enumerate(examples)]
    held = [
        sum(not kept for kept in example.task.followed(answer))
        for example, answer in zip(examples, rejected, strict=True)
        if answer
    ]
    assert set(held) == {1}
    assert len(held) > 0.9 * len(examples) > 100
