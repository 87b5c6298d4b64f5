"""Answers of a chat model, and what can be said of them without a reference: truncated, looping, copied, on topic."""

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
"""Consecutive repeats that count as a loop; no copy task asks for more than four."""


@dataclass(frozen=True)
class Answer:
    """One answer of a model."""

    text: str
    ended: bool = True
    """Whether the model ended the answer itself; False if the token limit cut it off."""
    tokens: tuple[int, ...] = ()
    """Token ids without the one that ends the answer; empty if the generator returns only text."""


class ChatModel(Protocol):
    """A model that answers conversations, paired with a language model that scores plain text."""

    def answer(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Answer]:
        """Generate the next turn of each conversation with greedy decoding."""

    def bits_per_byte(self, texts: Sequence[str]) -> float:
        """Bits per byte of the texts, each scored as plain text on its own; 0.0 if all are empty."""


def describe_answers(answers: Sequence[Answer], prompts: Sequence[str]) -> dict[str, float]:
    """Average statistics of a set of answers, none of which needs a reference answer.

    Args:
        answers: The answers.
        prompts: The user's text that each answer replies to, in the same order.

    Returns:
        `truncated`: share of answers cut off by the token limit. `looping`: share that repeat a phrase
        `MIN_LOOP_REPEATS` times in a row. `prompt_copy`: mean share of an answer that is copied from its prompt in one
        piece. `num_words`: mean length. `topic_match`: share of answers that share more content words with their own
        prompt than with the next one; chance is 0.5.
    """
    texts = [answer.text for answer in answers]
    other_prompts = [*prompts[1:], *prompts[:1]]
    return {
        "truncated": _mean(not answer.ended for answer in answers),
        "looping": _mean(map(loops, texts)),
        "prompt_copy": _mean(map(prompt_copy, texts, prompts)),
        "num_words": _mean(len(text.split()) for text in texts),
        "topic_match": _mean(map(topic_match, texts, prompts, other_prompts)),
    }


def loops(text: str) -> bool:
    """Whether the text repeats a phrase of one or more words `MIN_LOOP_REPEATS` times in a row."""
    words = text.lower().split()
    for period in range(1, len(words) // MIN_LOOP_REPEATS + 1):
        # A phrase of `period` words repeated n times is a run of (n - 1) * period words, each equal to the word
        # `period` positions later. This also finds loops that start or stop in the middle of the phrase.
        matches = (first == second for first, second in zip(words, words[period:], strict=False))
        longest_run = max((sum(1 for _ in run) for is_equal, run in groupby(matches) if is_equal), default=0)
        if longest_run >= period * (MIN_LOOP_REPEATS - 1):
            return True
    return False


def prompt_copy(text: str, prompt: str) -> float:
    """Share of the answer's words in its longest run copied from the prompt, between 0 and 1; 0 if it is empty."""
    return longest_copy(text, prompt) / max(1, len(text.split()))


def longest_copy(text: str, prompt: str) -> int:
    """Number of words in the longest run that the answer has in common with its prompt."""
    # By default, difflib ignores words that are frequent in long texts, and runs would break at every "the".
    return SequenceMatcher(None, text.split(), prompt.split(), autojunk=False).find_longest_match().size


def topic_match(text: str, prompt: str, other_prompt: str) -> float:
    """1.0 if the answer shares more content words with its own prompt than with another, 0.0 if fewer, 0.5 on a tie."""
    answer, own, other = (set(content_words(part.lower())) for part in (text, prompt, other_prompt))
    difference = len(answer & own) - len(answer & other)
    return 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0


def _mean(numbers: Iterable[float]) -> float:
    values = list(numbers)
    return fmean(values) if values else 0.0
