"""What can be told of any answers without judging them: whether they end, repeat themselves, or copy the question."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from statistics import fmean
from typing import Protocol

from keylm.common.documents import Message
from keylm.instructions.content_words import content_words

MIN_LOOP_REPEATS = 5
"""So many times in a row is a loop; no exercise asks for more than four."""


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    ended: bool = True
    """Whether the model ended it, and not the limit of tokens."""
    tokens: tuple[int, ...] = ()
    """Its token ids, where they were asked for; the one that ends it is not among them."""


class ChatModel(Protocol):
    """A model that can be asked, and a plain language model that reads what it said."""

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """The likeliest next turn of each conversation."""

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts as plain text, each by itself; 0 of nothing."""


def describe_answers(answers: Sequence[Answer], questions: Sequence[str]) -> dict[str, float]:
    """Means over the answers, in the order of their questions.

    `unfinished` is the share that ran to the limit of tokens, `looped` the share that loops, `echoed` the share of an
    answer that is one run of its question's words, `words` its length, `topical` the share of answers that are nearer
    to their own question than to the next one: one half is chance.
    """
    texts = [answer.text for answer in answers]
    others = [*questions[1:], *questions[:1]]
    return {
        "unfinished": _mean(not answer.ended for answer in answers),
        "looped": _mean(map(loops, texts)),
        "echoed": _mean(map(prompt_copy, texts, questions)),
        "words": _mean(len(text.split()) for text in texts),
        "topical": _mean(map(topic_match, texts, questions, others)),
    }


def loops(text: str) -> bool:
    """Whether a stretch of one or more words is said `MIN_LOOP_REPEATS` times in a row."""
    words = text.lower().split()
    return any(
        _longest_period(words, size) >= size * (MIN_LOOP_REPEATS - 1)
        for size in range(1, len(words) // MIN_LOOP_REPEATS + 1)
    )


def prompt_copy(text: str, question: str) -> float:
    """Share of the answer's words that its longest common run with the question is; 0 of an empty answer."""
    return longest_copy(text, question) / max(1, len(text.split()))


def longest_copy(text: str, question: str) -> int:
    """Words of the longest run that an answer has in common with its question."""
    return SequenceMatcher(None, text.split(), question.split(), autojunk=False).find_longest_match().size


def topic_match(text: str, question: str, other: str) -> float:
    """1 if the answer has more words that carry meaning in common with its question than with another, 0 if fewer."""
    said, own, foreign = (set(content_words(each.lower())) for each in (text, question, other))
    difference = len(said & own) - len(said & foreign)
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _longest_period(words: list[str], size: int) -> int:
    """Length of the longest run of words that equal the one `size` places on."""
    same = (first == second for first, second in zip(words, words[size:], strict=False))
    return max((sum(1 for _ in run) for equal, run in groupby(same) if equal), default=0)


def _mean(numbers: Iterable[float]) -> float:
    found = list(numbers)
    return fmean(found) if found else 0.0
