"""Drills: a few random words, said over and over. They mean nothing, and teach one thing early: to copy.

Natural text rewards copying seldom, so a small model finds it late or, in a short training, not at all. Here most
tokens can only be known from what came before: half a million tokens are enough (`docs/log.md`).
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from string import ascii_lowercase

from keylm.data.instructions.sampler import Sampler

_SEPARATORS = ("\n", "\n", "\n\n", ". ", ", ", " - ", " | ", "\n- ")


def generate(num_documents: int, seed: int) -> Iterator[str]:
    """Documents of about 100 tokens; document `i` is a pure function of `seed` and `i`.

    Words that `keylm.data.instructions` holds out for evaluation are not used.
    """
    for index in range(num_documents):
        yield document(Random(f"drill:{seed}:{index}"))


def document(rng: Random) -> str:
    """One to eight words, five to nine times."""
    sampler = Sampler(rng)
    phrase = " ".join(_word(sampler) for _ in range(rng.randint(1, 8)))
    return rng.choice(_SEPARATORS).join([rng.choice((phrase, phrase.capitalize()))] * rng.randint(5, 9))


def _word(sampler: Sampler) -> str:
    """An ordinary word, a noun, a modifier, an invented name, or letters."""
    letters = "".join(sampler.rng.choices(ascii_lowercase, k=sampler.number(2, 6)))
    return sampler.choice((sampler.word(), sampler.noun(), sampler.modifier(), sampler.name(), letters))
