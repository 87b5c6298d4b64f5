"""Small edits of an answer that violate one constraint and leave the others alone."""

from __future__ import annotations

import re

from keylm.instructions.sampler import Sampler

# Without commas, digits, questions or capitals inside, so that an added one violates only what it is meant to.
MENTIONS = (
    "It makes me think of {}.",
    "It goes well with {}.",
    "I also like {}.",
    "Another story is about {}.",
    "Next to it there is {}.",
    "There is also {}.",
    "People also talk about {}.",
)
"""Sentences with a slot for any words."""


def match_case(text: str, answer: str) -> str:
    """`text` in lower or upper case if the whole answer is."""
    return text.lower() if answer.islower() else text.upper() if answer.isupper() else text


def mention(sampler: Sampler) -> str:
    """A sentence about an ordinary word."""
    return sampler.choice(MENTIONS).format(sampler.word())


def add_sentence(answer: str, sentence: str) -> str:
    """Insert a sentence after the first one that ends in the answer."""
    matched = match_case(sentence, answer)
    # Three letters before the mark exclude abbreviations such as "P.S.", list numbers and "...".
    return re.sub(r"(?<=[^\W\d_]{3}[.!?])(?= |\n|$)", lambda _: f" {matched}", answer, count=1)


def add_mentions(answer: str, count: int, sampler: Sampler) -> str:
    """Insert `count` sentences about ordinary words."""
    for _ in range(count):
        answer = add_sentence(answer, mention(sampler))
    return answer


def append_mention(answer: str, sampler: Sampler) -> str:
    """Append a sentence about an ordinary word."""
    return f"{answer} {match_case(mention(sampler), answer)}"


def drop_sentence(answer: str, sampler: Sampler) -> str:
    """Delete a random sentence, but never the only one of its line."""
    # A line left empty would violate constraints on layout too.
    after_another = r"(?<=[.!?]) [^.!?\n]+[.!?](?=[ \n]|$)"
    before_another = r"(?<![^\n])\w[^.!?\n]+[.!?] (?=\w)"
    return _replace_random_match(f"{after_another}|{before_another}", "", answer, sampler)


def change_one(pattern: str, replacement: str, answer: str, sampler: Sampler) -> str:
    """Replace a random match of `pattern`, ignoring case; `^` and `$` match at every line."""
    return _replace_random_match(pattern, replacement, answer, sampler, re.IGNORECASE | re.MULTILINE)


def swap_word(word: str, answer: str, sampler: Sampler, keep: int = 0) -> str:
    """Replace `word` by another word everywhere except in its first `keep` occurrences."""
    other = match_case(sampler.word(), answer)
    occurrences = list(re.finditer(re.escape(word), answer, re.IGNORECASE))
    # From the end, so that the positions of earlier matches stay valid.
    for match in reversed(occurrences[keep:]):
        answer = answer[: match.start()] + other + answer[match.end() :]
    return answer


def _replace_random_match(pattern: str, replacement: str, answer: str, sampler: Sampler, flags: int = 0) -> str:
    matches = list(re.finditer(pattern, answer, flags))
    if not matches:
        return answer
    match = sampler.choice(matches)
    return answer[: match.start()] + match.expand(replacement) + answer[match.end() :]
