"""Drills: a few random words, said over and over. They mean nothing, and teach one thing early: to copy.

Natural text rewards copying seldom, so a small model finds it late or, in a short training, not at all. Here most
tokens can only be known from what came before: half a million tokens are enough (`docs/log.md`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from string import ascii_lowercase

from keylm.common.documents import Document
from keylm.instructions.sampler import Sampler
from keylm.instructions.words import is_held_out_word

_WORD = re.compile(r"\w{2,20}")
_MOST_WORDS = 20_000
"""Different words taken of other sources: about as many as a reader knows."""
_SEPARATORS = ("\n", "\n", "\n\n", ". ", ", ", " - ", " | ", "\n- ")


def generate_repetition(num_documents: int, seed: int, found: Sequence[str] = ()) -> Iterator[str]:
    """Documents of about 100 tokens; document `i` is a pure function of `seed`, `i` and the words `found` elsewhere.

    Words that `keylm.instructions.splits` holds out for evaluation are not used.
    """
    for index in range(num_documents):
        yield repetition_document(Random(f"drill:{seed}:{index}"), found)


def words_of(documents: Iterable[Document]) -> list[str]:
    """The first 20,000 different words of `documents` that evaluation does not hold out, as they are written there."""
    words = (word for document in documents for text in document.contents for word in _WORD.findall(text))
    return list(islice(_different(word for word in words if not is_held_out_word(word)), _MOST_WORDS))


def repetition_document(rng: Random, found: Sequence[str]) -> str:
    """One to eight words, five to nine times."""
    sampler = Sampler(rng)
    phrase = " ".join(_word(sampler, found) for _ in range(rng.randint(1, 8)))
    return rng.choice(_SEPARATORS).join([rng.choice((phrase, phrase.capitalize()))] * rng.randint(5, 9))


def _different(words: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for word in words:
        if word not in seen:
            seen.add(word)
            yield word


def _word(sampler: Sampler, found: Sequence[str]) -> str:
    """A word found elsewhere, an ordinary word, a noun, a modifier, an invented name, or letters."""
    if found and sampler.chance(0.6):
        return sampler.choice(found)
    letters = "".join(sampler.rng.choices(ascii_lowercase, k=sampler.number(2, 6)))
    return sampler.choice((sampler.word(), sampler.noun(), sampler.modifier(), sampler.name(), letters))
