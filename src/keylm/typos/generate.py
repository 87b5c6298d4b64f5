"""Mistyped text beside what was meant: one half shows typos where they occur, the other half says what they mean.

Document `i` is a pure function of the seed, of the piece of text that it is made of, and of `i`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random

from keylm.common.documents import Document, Message
from keylm.recipe.sources import TyposConfig
from keylm.typos import framings
from keylm.typos.error_model import mistype
from keylm.typos.passages import pieces


def generate_typos(documents: Iterable[Document], source: TyposConfig, seed: int) -> Iterator[Document]:
    """At most `source.num_documents` documents, made of pieces of `documents`, which are taken as they are needed.

    Of conversations come conversations alone; of plain text, both.
    """
    found = (piece for base in documents for piece in pieces(base, Random(f"piece:{seed}:{base.digest}")))
    for index, piece in enumerate(islice(found, source.num_documents)):
        yield typo_document(piece, source, Random(f"typo:{seed}:{piece.digest}:{index}"))


def typo_document(piece: Document, source: TyposConfig, rng: Random) -> Document:
    """A contrastive pair in `source.pair_fraction` of the cases, else mistyped words with what follows them, clean."""
    rate = rng.uniform(*source.rates)
    if piece.messages is None:
        meant = piece.text or ""
        if rng.random() < source.pair_fraction:
            return framings.pair(mistype(meant, rate, rng), meant, is_talk=False, rng=rng)
        return Document(text=mistyped_beginning(meant, rate, rng))
    if rng.random() < source.pair_fraction:
        meant = rng.choice([message["content"] for message in piece.messages if message["role"] == "user"])
        return framings.pair(mistype(meant, rate, rng), meant, is_talk=True, rng=rng)
    return Document(messages=tuple(_mistyped_turn(message, rate, rng) for message in piece.messages))


def mistyped_beginning(text: str, rate: float, rng: Random) -> str:
    """`text` with its first words mistyped, up to a space or a line end between a third and two thirds of it."""
    cut = cut_near(text, rng.uniform(1 / 3, 2 / 3))
    return mistype(text[:cut], rate, rng) + text[cut:]


def cut_near(text: str, share: float) -> int:
    """Where the last word ends that ends within this share of `text`; its length, where there is one word alone."""
    middle = round(share * len(text))
    return next((index for index in range(middle, 0, -1) if text[index].isspace()), len(text))


def _mistyped_turn(message: Message, rate: float, rng: Random) -> Message:
    if message["role"] != "user":
        return message
    return {"role": "user", "content": mistype(message["content"], rate, rng)}
