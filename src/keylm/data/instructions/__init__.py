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
from keylm.data.instructions.constraints import BASIC, COPYING, KINDS, NEW_KINDS, Constraint
from keylm.data.instructions.constraints.start_end import RepeatRequest
from keylm.data.instructions.conversations import CONVERSATIONS
from keylm.data.instructions.exercises import EXERCISES
from keylm.data.instructions.mistyped import mistyped_task, typed
from keylm.data.instructions.requests import Kinds, topical
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import Check, Example, Task
from keylm.data.instructions.turns import asked_later, still_asked

__all__ = ["KIND_SETS", "SPLITS", "Check", "Example", "Task", "generate", "held_out", "held_out_examples"]

SHARES = {"request": 0.58, "exercise": 0.22, "conversation": 0.10, "two turns": 0.10}
"""Share of each sort of document in training."""

KIND_SETS: dict[str, Kinds] = {"basic": BASIC, "all": (*KINDS, *2 * COPYING)}
"""Kinds of constraints that training can ask for, by the name of the set: those that copy, three times as often."""


Maker = Callable[[Sampler], Example]


def _everything(kinds: Kinds) -> list[Maker]:
    """A plain request, a request of each kind, and every exercise."""
    return [topical, *_constrained_makers(kinds), *dict.fromkeys(EXERCISES)]


def _new_kinds(_kinds: Kinds) -> list[Maker]:
    """A request of each kind that is never trained, alone."""
    return [partial(topical, kinds=[kind]) for kind in NEW_KINDS]


def _mistyped(kinds: Kinds) -> list[Maker]:
    """A request of each kind in which the user mistypes: what an exercise copies has to be typed right."""
    return [partial(_with_typos, maker) for maker in _constrained_makers(kinds)]


def _two_turns(kinds: Kinds) -> list[Maker]:
    """Each kind asked for in the second turn, or still by the first; with two requests, none is `the request`."""
    return [partial(turn, kind) for kind in kinds if kind is not RepeatRequest for turn in (asked_later, still_asked)]


@dataclass(frozen=True)
class Split:
    """What a held-out task has that training has not."""

    new_words: bool = True
    new_phrasings: bool = True
    makers: Callable[[Kinds], list[Maker]] = _everything
    """What makes the tasks, in turn, of the kinds that were trained."""


SPLITS = {
    "new topics and phrasings": Split(),
    "new topics": Split(new_phrasings=False),
    "new phrasings": Split(new_words=False),
    "new kinds": Split(makers=_new_kinds),
    "typos": Split(makers=_mistyped),
    "multi-turn": Split(makers=_two_turns),
}
"""The splits of evaluation; the first is the headline."""

TYPOS = 0.05
"""Share of the characters that are mistyped in the split of that name."""


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
    if sort == "two turns":
        example = sampler.choice(_two_turns(kinds))(sampler)
    else:
        example = topical(sampler, sampler.rng.sample(kinds, sampler.choice((0, 1, 1, 1, 2))))
    return typed(example, sampler.rng).document


def held_out(num: int, seed: int, split: str = "new topics and phrasings", kinds: Kinds = BASIC) -> list[Task]:
    """Evaluation tasks of a split: its kinds in turn, so that each has its even share."""
    return [example.task for example in held_out_examples(num, seed, split, kinds)]


def held_out_examples(num: int, seed: int, split: str, kinds: Kinds) -> list[Example]:
    """The same tasks, each with an answer that follows."""
    new = SPLITS[split]
    makers = new.makers(tuple(dict.fromkeys(kinds)))
    name = "held out" if split == next(iter(SPLITS)) else f"held out, {split}"
    draws = (Random(f"{name}:{seed}:{index}") for index in range(num))
    samplers = [Sampler(draw, new.new_words, new.new_phrasings) for draw in draws]
    return [makers[index % len(makers)](sampler) for index, sampler in enumerate(samplers)]


def _constrained_makers(kinds: Kinds) -> list[Maker]:
    return [partial(_constrained, kind, kinds) for kind in kinds]


def _constrained(kind: type[Constraint], kinds: Kinds, sampler: Sampler) -> Example:
    """A request of this kind, one in three with a second constraint."""
    return topical(sampler, [kind, *sampler.rng.sample(kinds, sampler.choice((0, 0, 1)))])


def _with_typos(maker: Maker, sampler: Sampler) -> Example:
    example = maker(sampler)
    return Example(mistyped_task(example.task, TYPOS, sampler.rng), example.answer)
