"""Where lm_eval's IFEval has the same constraint, its checker and ours agree, but for what is explained here."""

import importlib
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from keylm.instructions.constraints.base import Constraint, count_sentences
from keylm.instructions.constraints.catalog import TRAINED
from keylm.instructions.constraints.choice import OneOf, TwoAnswers
from keylm.instructions.constraints.keywords import (
    FewerTimes,
    Forbidden,
    Frequency,
    KeySentence,
    Keywords,
    LetterAtLeast,
    LetterFewer,
)
from keylm.instructions.constraints.layout import (
    Bullets,
    FirstWordOfParagraph,
    Highlights,
    Json,
    Paragraphs,
    Placeholders,
    Sections,
    Title,
)
from keylm.instructions.constraints.length import FewerSentences, MaxWords, MinSentences, MinWords
from keylm.instructions.constraints.letter_case import CapitalWords, FewCapitalWords, Lowercase, Uppercase
from keylm.instructions.constraints.punctuation import NoCommas
from keylm.instructions.constraints.start_end import EndPhrase, Postscript, Quotation, RepeatRequest, StartPhrase
from keylm.instructions.requests import topic_request
from keylm.instructions.sampler import Sampler

Arguments = Callable[[Any], dict[str, Any]]

SAME_CONSTRAINTS: dict[type[Constraint], tuple[str, Arguments]] = {
    Keywords: ("KeywordChecker", lambda own: {"keywords": list(own.words)}),
    Frequency: (
        "KeywordFrequencyChecker",
        lambda own: {"keyword": own.word, "frequency": own.times, "relation": "at least"},
    ),
    FewerTimes: (
        "KeywordFrequencyChecker",
        lambda own: {"keyword": own.word, "frequency": own.times, "relation": "less than"},
    ),
    Forbidden: ("ForbiddenWords", lambda own: {"forbidden_words": [own.word]}),
    LetterAtLeast: (
        "LetterFrequencyChecker",
        lambda own: {"letter": own.letter, "let_frequency": own.times, "let_relation": "at least"},
    ),
    LetterFewer: (
        "LetterFrequencyChecker",
        lambda own: {"letter": own.letter, "let_frequency": own.times, "let_relation": "less than"},
    ),
    MaxWords: ("NumberOfWords", lambda own: {"num_words": own.count + 1, "relation": "less than"}),
    MinWords: ("NumberOfWords", lambda own: {"num_words": own.count, "relation": "at least"}),
    MinSentences: ("NumberOfSentences", lambda own: {"num_sentences": own.count, "relation": "at least"}),
    FewerSentences: ("NumberOfSentences", lambda own: {"num_sentences": own.count, "relation": "less than"}),
    Bullets: ("BulletListChecker", lambda own: {"num_bullets": own.count}),
    Paragraphs: ("ParagraphChecker", lambda own: {"num_paragraphs": own.count}),
    FirstWordOfParagraph: (
        "ParagraphFirstWordCheck",
        lambda own: {"num_paragraphs": own.count, "nth_paragraph": own.position, "first_word": own.word},
    ),
    Sections: ("SectionChecker", lambda own: {"section_spliter": own.label, "num_sections": own.count}),
    Highlights: ("HighlightSectionChecker", lambda own: {"num_highlights": own.count}),
    Placeholders: ("PlaceholderChecker", lambda own: {"num_placeholders": own.count}),
    Title: ("TitleChecker", lambda own: {}),
    Json: ("JsonFormat", lambda own: {}),
    CapitalWords: (
        "CapitalWordFrequencyChecker",
        lambda own: {"capital_frequency": own.count, "capital_relation": "at least"},
    ),
    FewCapitalWords: (
        "CapitalWordFrequencyChecker",
        lambda own: {"capital_frequency": own.count, "capital_relation": "less than"},
    ),
    Lowercase: ("LowercaseLettersEnglishChecker", lambda own: {}),
    Uppercase: ("CapitalLettersEnglishChecker", lambda own: {}),
    NoCommas: ("CommaChecker", lambda own: {}),
    StartPhrase: ("ConstrainedStartChecker", lambda own: {"starter": own.opening}),
    EndPhrase: ("EndChecker", lambda own: {"end_phrase": own.ending}),
    Postscript: ("PostscriptChecker", lambda own: {"postscript_marker": own.marker}),
    RepeatRequest: ("RepeatPromptThenAnswer", lambda own: {"prompt_to_repeat": own.request}),
    Quotation: ("QuotationChecker", lambda own: {}),
    OneOf: ("ConstrainedResponseChecker", lambda own: {}),
    TwoAnswers: ("TwoResponsesChecker", lambda own: {}),
    KeySentence: ("KeySentenceChecker", lambda own: {"key_sentences": [own.sentence], "num_sentences": 1}),
}


def our_reason(own: Constraint, theirs: Any, answer: str) -> str | None:
    """Why the two may differ on this answer, if there is a reason."""
    match own:
        case Json() if not own.check(answer) and theirs.check_following(answer):
            return "theirs asks for no key, and takes numbers and lists"
        case Lowercase() | Uppercase() if own.check(answer):
            return "theirs also guesses the language, and takes short or capital English for German"
        case Lowercase() | Uppercase() if not re.search(r"[^\W\d_]", answer):
            return "theirs lets pass what has no letters"
        case StartPhrase() if own.opening not in answer or any(map(str.strip, answer.partition(own.opening)[::2])):
            return "theirs cares for case, and takes the beginning of any line"
        case OneOf() if not own.check(answer):
            return "theirs is content if one of the answers occurs, be there others"
        case KeySentence():
            return "theirs cares for case, and cuts sentences at line breaks of its own"
        case MinSentences() | FewerSentences() if not re.fullmatch(r"([A-Z][^.!?\"]*\w{3}[.!?](\s+|$))+", answer):
            return "theirs counts by punkt, which guesses at marks, lists, quotations, abbreviations and small letters"
        case CapitalWords() | FewCapitalWords():
            return "theirs takes words apart as nltk does" if re.search(r"[^\w\s.,!?:\-*]|\w[.*]\w", answer) else None
    return None


@pytest.fixture(scope="module")
def ifeval(shared: Path):
    """lm_eval's checkers, with nltk's data from the shared folder."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    nltk.data.path.insert(0, str(shared / "eval" / "nltk_data"))
    return importlib.import_module("lm_eval.tasks.ifeval.instructions")


def random_answers(own: Constraint, answer: str, num: int, seed: int) -> list[str]:
    """Answers to this and to other constraints, broken ones, joined pieces, other cases, without their marks."""
    draw = random.Random(f"{own}:{seed}")
    return [
        mutated(draw.choice([answer, own.violate(answer, Sampler(draw)), draw.choice(answers_of_all_kinds())]), draw)
        for _ in range(num)
    ]


@cache
def answers_of_all_kinds() -> list[str]:
    examples = [
        topic_request(Sampler(random.Random(f"{constraint_type.name}:{seed}")), [constraint_type])
        for constraint_type in TRAINED
        for seed in range(20)
    ]
    return [text for example in examples for text in (example.answer, example.task.messages[0]["content"])]


def mutated(text: str, draw: random.Random) -> str:
    change = draw.choice(CHANGES)
    return change(text, draw)


CHANGES: list[Callable[[str, random.Random], str]] = [
    lambda text, draw: text,
    lambda text, draw: text,
    lambda text, draw: text[: draw.randrange(len(text) + 1)],
    lambda text, draw: text[draw.randrange(len(text) + 1) :],
    lambda text, draw: text.upper(),
    lambda text, draw: text.lower(),
    lambda text, draw: text.replace("\n", " "),
    lambda text, draw: text.replace(". ", ".\n"),
    lambda text, draw: f"{text}{draw.choice([' ', chr(10), chr(10) * 2])}{draw.choice(answers_of_all_kinds())}",
    lambda text, draw: text + draw.choice(["!", ".", '"', "*", " ", "\n***", "\n"]),
    lambda text, draw: " ".join(draw.sample(text.split(" "), len(text.split(" ")))),
]


@pytest.mark.parametrize("num", [500, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("constraint_type", SAME_CONSTRAINTS, ids=lambda constraint_type: constraint_type.name)
def test_checks_agree_with_lm_eval(ifeval: Any, constraint_type: type[Constraint], num: int) -> None:
    name, arguments = SAME_CONSTRAINTS[constraint_type]
    seen: set[bool] = set()
    excused = 0
    for seed in range(10):
        example = topic_request(Sampler(random.Random(f"{seed}")), [constraint_type])
        (own,) = example.task.checks
        theirs = getattr(ifeval, name)(name)
        theirs.build_description(**arguments(own))
        if isinstance(own, OneOf):
            theirs._constrained_responses = own.options
        for answer in random_answers(own, example.answer, num // 10, seed):
            passes = own.check(answer)
            if passes != theirs.check_following(answer):
                assert our_reason(own, theirs, answer), (own, answer, passes)
                excused += 1
            seen.add(passes)
    assert seen == {True, False}
    assert excused < num / 2


def test_sentences_are_counted_as_lm_eval_counts_them(ifeval: Any) -> None:
    for seed in range(150):
        answer = topic_request(Sampler(random.Random(f"{seed}")), []).answer
        assert count_sentences(answer) == ifeval.instructions_util.count_sentences(answer)
