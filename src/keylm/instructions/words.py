"""The words that topics, names and exercises are made of, and the rule that holds a fifth of them out."""

from __future__ import annotations

import zlib
from functools import cache
from importlib.resources import files
from random import Random

_ONSETS = ("b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "br", "tr", "st")
_VOWELS = ("a", "a", "e", "e", "i", "o", "o", "u")
_CODAS = ("", "", "", "l", "n", "r", "s")
_MORE = ("nouns", "modifiers", "words")


def is_held_out_word(word: str) -> bool:
    """Whether evaluation alone may use `word`: a fifth of all words, singular and plural sharing one fate."""
    return zlib.crc32(word.lower().rstrip("s").encode()) % 5 == 0


@cache
def words(name: str, held_out: bool) -> tuple[str, ...]:
    """One split of a word list: `nouns` (plural), `modifiers`, `places`, `first_names` or `words` (of any kind).

    Training has more of the first, second and last: the more words there are to copy, the less it can be done by heart.
    """
    names = (name,) if held_out or name not in _MORE else (name, f"more_{name}")
    text = " ".join((files(__package__) / f"{part}.txt").read_text(encoding="utf-8") for part in names)
    return tuple(word for word in sorted(set(text.split())) if is_held_out_word(word) == held_out)


def invent_name(rng: Random, held_out: bool) -> str:
    """A name that nobody bears, such as `Varnel` or `Oskita`: it can only be copied."""
    while True:
        name = "".join(_syllable(rng) for _ in range(rng.choice((2, 2, 3)))).capitalize()
        if is_held_out_word(name) == held_out:
            return name


def _syllable(rng: Random) -> str:
    return rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS)
