"""The generator of typo documents: contrastive pairs, and mistyped text that continues cleanly.

    pair          user       Fix the typos: I thikn so.       continuation   I thikn so, because it is late. We
                  assistant  I think so.                                     should go home.

Document `i` is a pure function of the seed, of the piece of text that it is made from, and of `i`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random

from keylm.common.documents import Document
from keylm.recipe.sources import TyposConfig
from keylm.typos.error_model import mistype
from keylm.typos.framings import contrastive_pair
from keylm.typos.passages import pieces


def generate_typos(documents: Iterable[Document], source: TyposConfig, seed: int) -> Iterator[Document]:
    """Generate at most `source.num_documents` documents from pieces of `documents`, which are read as needed.

    Conversations give only conversations; plain text gives both.
    """
    # Lazily, so that memory stays constant and no more is read than documents are needed.
    all_pieces = (piece for base in documents for piece in pieces(base, Random(f"piece:{seed}:{base.digest}")))
    for index, piece in enumerate(islice(all_pieces, source.num_documents)):
        yield typo_document(piece, source, Random(f"typo:{seed}:{piece.digest}:{index}"))


def typo_document(piece: Document, source: TyposConfig, rng: Random) -> Document:
    """Make a contrastive pair with probability `source.pair_fraction`, else a mistyped beginning and a clean rest.

    In a conversation the beginning is what the user says; what the assistant says stays clean.
    """
    rate = rng.uniform(*source.rates)
    if piece.messages is None:
        meant = piece.text or ""
        if rng.random() < source.pair_fraction:
            return contrastive_pair(mistype(meant, rate, rng), meant, is_chat=False, rng=rng)
        return Document(text=mistyped_beginning(meant, rate, rng))
    if rng.random() < source.pair_fraction:
        # Only what the user says: people mistype, the assistant does not.
        meant = rng.choice([message["content"] for message in piece.messages if message["role"] == "user"])
        return contrastive_pair(mistype(meant, rate, rng), meant, is_chat=True, rng=rng)
    return Document(
        messages=tuple(
            {"role": "user", "content": mistype(message["content"], rate, rng)}
            if message["role"] == "user"
            else message
            for message in piece.messages
        )
    )


def mistyped_beginning(text: str, rate: float, rng: Random) -> str:
    """Mistype the first words of `text`, up to a word boundary in its middle third."""
    cut = cut_near(text, rng.uniform(1 / 3, 2 / 3))
    return mistype(text[:cut], rate, rng) + text[cut:]


def cut_near(text: str, fraction: float) -> int:
    """The last white space in the first `fraction` of `text`, as an index; the length if there is none."""
    middle = round(fraction * len(text))
    return next((index for index in range(middle, 0, -1) if text[index].isspace()), len(text))
