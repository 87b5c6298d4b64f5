"""Generated instructions: conversations to train on, and held-out tasks to be judged by.

Document `i` is a pure function of the seed and of `i`. Held-out tasks use words, names, phrasings and kinds of
constraints that no training document uses (`keylm.data.instructions.words.is_held_out`, `Phrasings`, `NEW_KINDS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from keylm.chat import Message
from keylm.data.instructions.constraints import BASIC, KINDS, NEW_KINDS, Constraint
from keylm.data.instructions.conversations import CONVERSATIONS
from keylm.data.instructions.exercises import EXERCISES
from keylm.data.instructions.requests import Kinds, topical
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import Check, Example, Task

__all__ = ["KIND_SETS", "SPLITS", "Check", "Example", "Task", "generate", "held_out"]

SHARES = {"request": 0.64, "exercise": 0.26, "conversation": 0.10}
"""Share of each sort of document in training."""

KIND_SETS: dict[str, Kinds] = {"basic": BASIC, "all": KINDS}
"""Kinds of constraints that training can ask for, by the name of the set."""


@dataclass(frozen=True)
class Split:
    """What a held-out task has that training has not."""

    new_words: bool
    new_phrasings: bool
    new_kinds: bool = False


SPLITS = {
    "new topics and phrasings": Split(new_words=True, new_phrasings=True),
    "new topics": Split(new_words=True, new_phrasings=False),
    "new phrasings": Split(new_words=False, new_phrasings=True),
    "new kinds": Split(new_words=True, new_phrasings=True, new_kinds=True),
}
"""The splits of evaluation; the first is the headline."""


def generate(num_documents: int, seed: int, kinds: Kinds = BASIC) -> Iterator[list[Message]]:
    """Training conversations; the assistant's turns satisfy what the user's turns ask."""
    for index in range(num_documents):
        yield document(seed, index, kinds)


def document(seed: int, index: int, kinds: Kinds = BASIC) -> list[Message]:
    """Training conversation number `index`."""
    sampler = Sampler(Random(f"{seed}:{index}"))
    (sort,) = sampler.rng.choices(list(SHARES), list(SHARES.values()))
    if sort == "conversation":
        return sampler.choice(CONVERSATIONS)(sampler)
    if sort == "exercise":
        return sampler.choice(EXERCISES)(sampler).document
    return topical(sampler, sampler.rng.sample(kinds, sampler.choice((0, 1, 1, 1, 2)))).document


def held_out(num: int, seed: int, split: str = "new topics and phrasings", kinds: Kinds = BASIC) -> list[Task]:
    """Evaluation tasks of a split: the kinds in turn, so that each has its even share.

    New kinds come alone; among the others there are plain requests and exercises too.
    """
    new = SPLITS[split]
    makers: list[Callable[[Sampler], Example]] = [partial(topical, kinds=[kind]) for kind in NEW_KINDS]
    if not new.new_kinds:
        makers = [topical, *(partial(_constrained, kind, kinds) for kind in kinds), *dict.fromkeys(EXERCISES)]
    name = "held out" if split == next(iter(SPLITS)) else f"held out, {split}"
    draws = (Random(f"{name}:{seed}:{index}") for index in range(num))
    samplers = [Sampler(draw, new.new_words, new.new_phrasings) for draw in draws]
    return [makers[index % len(makers)](sampler).task for index, sampler in enumerate(samplers)]


def _constrained(kind: type[Constraint], kinds: Kinds, sampler: Sampler) -> Example:
    """A request of this kind, one in three with a second constraint."""
    return topical(sampler, [kind, *sampler.rng.sample(kinds, sampler.choice((0, 0, 1)))])
