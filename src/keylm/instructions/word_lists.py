"""The word lists that topics, names and copy tasks draw from, and the rule that holds a fifth of them out."""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files
from random import Random

_ONSETS = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "tr", "st")
_VOWELS = ("a", "a", "e", "e", "i", "o", "o", "u")
_CODAS = ("", "", "", "l", "n", "r", "s")
_EXTENDED = ("nouns", "modifiers", "words")
"""Lists with a second file, `more_*.txt`, for training: the more words, the less copying can be replaced by recall."""


def is_held_out_word(word: str) -> bool:
    """Whether only evaluation may use `word`: true of a fifth of all words, and of a singular as of its plural."""
    # Python's `hash` of a string differs from process to process.
    return zlib.crc32(word.lower().rstrip("s").encode()) % 5 == 0


@cache
def word_list(name: str, held_out: bool) -> tuple[str, ...]:
    """The held-out or the training split of a list.

    Args:
        name: `nouns` (plurals), `modifiers`, `places`, `first_names` or `words` (of any part of speech).
        held_out: Whether to return the words of evaluation, or those of training.
    """
    names = (name,) if held_out or name not in _EXTENDED else (name, f"more_{name}")
    text = " ".join((files(__package__) / f"{part}.txt").read_text(encoding="utf-8") for part in names)
    # Sorted, because words are drawn by their position.
    return tuple(word for word in sorted(set(text.split())) if is_held_out_word(word) == held_out)


def invent_name(rng: Random, held_out: bool) -> str:
    """Invent a name such as `Varnel` or `Oskita`. No memory of other text helps with it: it has to be copied."""
    while True:
        syllables = [
            rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(rng.choice((2, 2, 3)))
        ]
        name = "".join(syllables).capitalize()
        if is_held_out_word(name) == held_out:
            return name
