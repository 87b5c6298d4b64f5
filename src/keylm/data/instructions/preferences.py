"""Pairs for training by preference: a request, an answer that follows it, and one that breaks a single constraint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

from keylm.chat import Message
from keylm.data.documents import Document
from keylm.data.instructions import verified
from keylm.data.instructions.broken import broken_twin
from keylm.data.instructions.constraints import KINDS
from keylm.data.instructions.requests import Kinds, topical
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import Example


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which the first is preferred."""

    prompt: list[Message]
    chosen: str
    rejected: str


def generated(seed: int, kinds: Kinds) -> Iterator[Pair]:
    """Pairs without end, of requests with one or two constraints, in the words and phrasings of training.

    Their draws are others than those of the conversations for SFT.
    """
    index = 0
    while True:
        sampler = Sampler(Random(f"preference:{seed}:{index}"))
        example = topical(sampler, sampler.rng.sample(kinds, sampler.choice((1, 1, 2))))
        yield from _pair(example, sampler.rng)
        index += 1


def constrained(documents: Iterable[Document], seed: int, kinds: Kinds = KINDS) -> Iterator[Pair]:
    """A pair of every real exchange that can be made to follow constraints and whose answer has a broken twin."""
    for document in documents:
        example = verified.constrain(document, seed, kinds)
        if example:
            yield from _pair(example, Random(f"preference:{seed}:{document.digest}"))


def _pair(example: Example, rng: Random) -> Iterator[Pair]:
    """The pair of an example; none where no small change breaks exactly one of its constraints."""
    twin = broken_twin(example, rng)
    if twin is not None:
        yield Pair(example.task.messages, example.answer, twin)
