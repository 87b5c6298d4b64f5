"""Small changes to an answer that break one constraint and leave the others alone."""

from __future__ import annotations

import re

from keylm.instructions.sampler import Sampler

MENTIONS = (
    "It makes me think of {}.",
    "It goes well with {}.",
    "I also like {}.",
    "Another story is about {}.",
    "Next to it there is {}.",
    "There is also {}.",
    "People also talk about {}.",
)
"""Sentences that have room for any words."""


def match_case(text: str, answer: str) -> str:
    """`text` in small or capital letters, if the whole answer is."""
    return text.lower() if answer.islower() else text.upper() if answer.isupper() else text


def mention(sampler: Sampler) -> str:
    """A sentence about an ordinary word."""
    return sampler.choice(MENTIONS).format(sampler.word())


def add_sentence(answer: str, sentence: str) -> str:
    """The answer with one more sentence, behind the first one that ends within a line."""
    added = match_case(sentence, answer)
    return re.sub(r"(?<=[^\W\d_]{3}[.!?])(?= |\n|$)", lambda _: f" {added}", answer, count=1)


def add_words(answer: str, count: int, sampler: Sampler) -> str:
    """The answer with at least `count` more words, in new sentences."""
    for _ in range(0, count, 3):
        answer = add_sentence(answer, mention(sampler))
    return answer


def drop_sentence(answer: str, sampler: Sampler) -> str:
    """The answer without one of its sentences, as long as its line has another."""
    found = list(re.finditer(r"(?<=[.!?]) [^.!?\n]+[.!?](?=[ \n]|$)|(?<![^\n])\w[^.!?\n]+[.!?] (?=\w)", answer))
    if not found:
        return answer
    chosen = sampler.choice(found)
    return answer[: chosen.start()] + answer[chosen.end() :]


def change_one(pattern: str, replacement: str, answer: str, sampler: Sampler) -> str:
    """The answer with any one match of `pattern` replaced."""
    found = list(re.finditer(pattern, answer, re.IGNORECASE | re.MULTILINE))
    if not found:
        return answer
    chosen = sampler.choice(found)
    return answer[: chosen.start()] + chosen.expand(replacement) + answer[chosen.end() :]


def swap_word(word: str, answer: str, sampler: Sampler, keep: int = 0) -> str:
    """The answer with another word in the place of `word`, but for the first `keep` times."""
    other = match_case(sampler.word(), answer)
    found = list(re.finditer(re.escape(word), answer, re.IGNORECASE))[keep:]
    for match in reversed(found):
        answer = answer[: match.start()] + other + answer[match.end() :]
    return answer
