"""Generated instructions: conversations to train on, and held-out tasks to be judged by.

Document `i` is a pure function of the seed and of `i`. Held-out tasks use words, names, phrasings and kinds of
constraints that no training document uses (`keylm.instructions.words.is_held_out_word`, `Phrasings`, `HELD_OUT`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

from keylm.common.documents import Message
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, COPYING, HELD_OUT, TRAINED
from keylm.instructions.constraints.start_end import RepeatRequest
from keylm.instructions.conversations import CONVERSATIONS
from keylm.instructions.copy_tasks import COPY_TASKS
from keylm.instructions.mistyped import maybe_mistype, mistyped_task
from keylm.instructions.multi_turn import asked_later, still_asked
from keylm.instructions.requests import ConstraintSet, topic_request
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task

SHARES = {"request": 0.58, "exercise": 0.22, "conversation": 0.10, "two turns": 0.10}
"""Share of each sort of document in training."""

CONSTRAINT_SETS: dict[str, ConstraintSet] = {"basic": BASIC_CONSTRAINTS, "all": (*TRAINED, *2 * COPYING)}
"""Kinds of constraints that training can ask for, by the name of the set: those that copy, three times as often."""


Maker = Callable[[Sampler], Example]


def _everything(kinds: ConstraintSet) -> list[Maker]:
    """A plain request, a request of each kind, and every exercise."""
    return [topic_request, *_constrained_makers(kinds), *dict.fromkeys(COPY_TASKS)]


def _new_kinds(_kinds: ConstraintSet) -> list[Maker]:
    """A request of each kind that is never trained, alone."""
    return [partial(topic_request, kinds=[kind]) for kind in HELD_OUT]


def _mistyped(kinds: ConstraintSet) -> list[Maker]:
    """A request of each kind in which the user mistypes: what an exercise copies has to be typed right."""
    return [partial(_with_typos, maker) for maker in _constrained_makers(kinds)]


def _two_turns(kinds: ConstraintSet) -> list[Maker]:
    """Each kind asked for in the second turn, or still by the first; with two requests, none is `the request`."""
    return [partial(turn, kind) for kind in kinds if kind is not RepeatRequest for turn in (asked_later, still_asked)]


@dataclass(frozen=True)
class Split:
    """What a held-out task has that training has not."""

    new_words: bool = True
    new_phrasings: bool = True
    makers: Callable[[ConstraintSet], list[Maker]] = _everything
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


def generate_conversations(
    num_documents: int, seed: int, kinds: ConstraintSet = BASIC_CONSTRAINTS
) -> Iterator[list[Message]]:
    """Training conversations; the assistant's turns satisfy what the user's turns ask."""
    for index in range(num_documents):
        yield conversation(seed, index, kinds)


def conversation(seed: int, index: int, kinds: ConstraintSet = BASIC_CONSTRAINTS) -> list[Message]:
    """Training conversation number `index`."""
    sampler = Sampler(Random(f"{seed}:{index}"))
    (sort,) = sampler.rng.choices(list(SHARES), list(SHARES.values()))
    if sort == "conversation":
        return sampler.choice(CONVERSATIONS)(sampler)
    if sort == "exercise":
        return sampler.choice(COPY_TASKS)(sampler).document
    if sort == "two turns":
        example = sampler.choice(_two_turns(kinds))(sampler)
    else:
        example = topic_request(sampler, sampler.rng.sample(kinds, sampler.choice((0, 1, 1, 1, 2))))
    return maybe_mistype(example, sampler.rng).document


def held_out(
    num: int, seed: int, split: str = "new topics and phrasings", kinds: ConstraintSet = BASIC_CONSTRAINTS
) -> list[Task]:
    """Evaluation tasks of a split: its kinds in turn, so that each has its even share."""
    return [example.task for example in held_out_examples(num, seed, split, kinds)]


def held_out_examples(num: int, seed: int, split: str, kinds: ConstraintSet) -> list[Example]:
    """The same tasks, each with an answer that follows."""
    new = SPLITS[split]
    makers = new.makers(tuple(dict.fromkeys(kinds)))
    name = "held out" if split == next(iter(SPLITS)) else f"held out, {split}"
    draws = (Random(f"{name}:{seed}:{index}") for index in range(num))
    samplers = [Sampler(draw, new.new_words, new.new_phrasings) for draw in draws]
    return [makers[index % len(makers)](sampler) for index, sampler in enumerate(samplers)]


def _constrained_makers(kinds: ConstraintSet) -> list[Maker]:
    return [partial(_constrained, kind, kinds) for kind in kinds]


def _constrained(kind: type[Constraint], kinds: ConstraintSet, sampler: Sampler) -> Example:
    """A request of this kind, one in three with a second constraint."""
    return topic_request(sampler, [kind, *sampler.rng.sample(kinds, sampler.choice((0, 0, 1)))])


def _with_typos(maker: Maker, sampler: Sampler) -> Example:
    example = maker(sampler)
    return Example(mistyped_task(example.task, TYPOS, sampler.rng), example.answer)
