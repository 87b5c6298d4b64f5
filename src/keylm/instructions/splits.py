"""Held-out tasks for evaluation: the splits, and what each has that training never has.

What can be held out: words and names (`word_lists.is_held_out_word`), phrasings (`Phrasings.held_out`) and constraints
(`catalog.HELD_OUT`). Task `i` of a split is a pure function of the seed and of `i`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, HELD_OUT, ConstraintSet
from keylm.instructions.copy_tasks import COPY_TASKS
from keylm.instructions.mistyped import mistyped_task
from keylm.instructions.multi_turn import two_turn_makers
from keylm.instructions.requests import topic_request
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task

TYPO_RATE = 0.05
"""Fraction of the characters that are mistyped in the split `typos`."""

ExampleMaker = Callable[[Sampler], Example]


def _constrained_requests(constraint_set: ConstraintSet) -> list[ExampleMaker]:
    """A request for each constraint, one in three with a second constraint."""

    def make(constraint_type: type[Constraint], sampler: Sampler) -> Example:
        second = sampler.rng.sample(constraint_set, sampler.choice((0, 0, 1)))
        return topic_request(sampler, [constraint_type, *second])

    return [partial(make, constraint_type) for constraint_type in constraint_set]


def _mistyped_requests(constraint_set: ConstraintSet) -> list[ExampleMaker]:
    """A request for each constraint, mistyped. Copy tasks are left out: what they copy has to be typed correctly."""

    def make(request: ExampleMaker, sampler: Sampler) -> Example:
        example = request(sampler)
        return Example(mistyped_task(example.task, TYPO_RATE, sampler.rng), example.answer)

    return [partial(make, request) for request in _constrained_requests(constraint_set)]


@dataclass(frozen=True)
class Split:
    """What a held-out task has that training has not."""

    new_words: bool = True
    new_phrasings: bool = True
    makers: Callable[[ConstraintSet], list[ExampleMaker]] = lambda constraint_set: [
        topic_request,
        *_constrained_requests(constraint_set),
        # Training draws some copy tasks more often; here each counts once.
        *dict.fromkeys(COPY_TASKS),
    ]
    """The functions that make the tasks, in turn, from the constraints that were trained. By default: a plain request,
    a request for each constraint, and every copy task."""


SPLITS = {
    "new topics and phrasings": Split(),
    "new topics": Split(new_phrasings=False),
    "new phrasings": Split(new_words=False),
    # Alone: with a trained constraint beside it, the score would mix what is new with what is not.
    "new kinds": Split(
        makers=lambda _: [partial(topic_request, constraint_types=[untrained]) for untrained in HELD_OUT]
    ),
    "typos": Split(makers=_mistyped_requests),
    "multi-turn": Split(makers=two_turn_makers),
}
"""The splits of the evaluation; the first is the headline."""


def held_out(
    num: int, seed: int, split: str = "new topics and phrasings", constraint_set: ConstraintSet = BASIC_CONSTRAINTS
) -> list[Task]:
    """The first `num` tasks of a split. The makers take turns, so every constraint has an equal share.

    Args:
        num: Number of tasks.
        seed: Seed of the evaluation.
        split: A key of `SPLITS`.
        constraint_set: The constraints that were trained.
    """
    return [example.task for example in held_out_examples(num, seed, split, constraint_set)]


def held_out_examples(num: int, seed: int, split: str, constraint_set: ConstraintSet) -> list[Example]:
    """The tasks of `held_out`, each with an answer that satisfies it."""
    settings = SPLITS[split]
    # A set can name a constraint several times, which weights the training; in evaluation each counts once.
    makers = settings.makers(tuple(dict.fromkeys(constraint_set)))
    # The seed string of the headline does not name the split; changing it would change the tasks.
    name = "held out" if split == next(iter(SPLITS)) else f"held out, {split}"
    examples: list[Example] = []
    for index in range(num):
        sampler = Sampler(Random(f"{name}:{seed}:{index}"), settings.new_words, settings.new_phrasings)
        examples.append(makers[index % len(makers)](sampler))
    return examples
