"""Generated instructions: conversations to train on, and held-out tasks to be judged by.

Document `i` is a pure function of the seed and of `i`. Held-out tasks use words, names and phrasings that no training
document uses for the same purpose (`keylm.data.instructions.words.is_held_out`, `Phrasings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random

from keylm.chat import Message
from keylm.data.instructions.constraints import KINDS, Brief, Constraint, Draft, compatible
from keylm.data.instructions.conversations import CONVERSATIONS
from keylm.data.instructions.exercises import EXERCISES
from keylm.data.instructions.sampler import Sampler
from keylm.data.instructions.task import Check, Example, Task, ask
from keylm.data.instructions.topics import request, sample_topic, sentences

__all__ = ["Check", "Example", "Task", "generate", "held_out"]

SHARES = {"request": 0.64, "exercise": 0.26, "conversation": 0.10}
"""Share of each sort of document in training."""


def generate(num_documents: int, seed: int) -> Iterator[list[Message]]:
    """Training conversations; the assistant's turns satisfy what the user's turns ask."""
    for index in range(num_documents):
        yield document(seed, index)


def document(seed: int, index: int) -> list[Message]:
    """Training conversation number `index`."""
    sampler = Sampler(Random(f"{seed}:{index}"), held_out=False)
    (sort,) = sampler.rng.choices(list(SHARES), list(SHARES.values()))
    if sort == "conversation":
        return sampler.choice(CONVERSATIONS)(sampler)
    if sort == "exercise":
        return sampler.choice(EXERCISES)(sampler).document
    return topical(sampler, sampler.rng.sample(KINDS, sampler.choice((0, 1, 1, 1, 2)))).document


def held_out(num: int, seed: int) -> list[Task]:
    """Evaluation tasks: the kinds in turn, so that each has its even share, and a plain request among them."""
    constrained = (partial(_constrained, kind) for kind in KINDS)
    makers: list[Callable[[Sampler], Example]] = [topical, *constrained, *dict.fromkeys(EXERCISES)]
    samplers = (Sampler(Random(f"held out:{seed}:{index}"), held_out=True) for index in range(num))
    return [makers[index % len(makers)](sampler).task for index, sampler in enumerate(samplers)]


def topical(sampler: Sampler, kinds: Sequence[type[Constraint]] = ()) -> Example:
    """A request about a topic under constraints of these kinds, and an answer that follows them.

    Kinds that do not go with one before them are left out. Chance can make a request that its answer fails (a
    forbidden word that is part of the topic): such a request is drawn again.
    """
    while True:
        topic = sample_topic(sampler)
        brief = Brief(topic, request(topic, sampler), sampler)
        constraints = tuple(kind.sample(brief) for kind in _compatible(kinds))
        prompt = _arrange(brief.request, [constraint.phrase(sampler) for constraint in constraints], sampler)
        task, answer = Task(ask(prompt), topic.name, constraints), _answer(brief, constraints)
        if all(task.followed(answer)):
            return Example(task, answer)


def _constrained(kind: type[Constraint], sampler: Sampler) -> Example:
    """A request of this kind, one in three with a second constraint."""
    return topical(sampler, [kind, *sampler.rng.sample(KINDS, sampler.choice((0, 0, 1)))])


def _compatible(kinds: Sequence[type[Constraint]]) -> list[type[Constraint]]:
    chosen: list[type[Constraint]] = []
    for kind in kinds:
        if all(compatible(kind, other) for other in chosen):
            chosen.append(kind)
    return sorted(chosen, key=KINDS.index)


def _arrange(request: str, asks: list[str], sampler: Sampler) -> str:
    """The request and what constrains it, in one of several orders."""
    if not asks:
        return request.rstrip(".") if sampler.chance(0.3) else request
    order = sampler.choice(("after", "after", "after", "before", "lines"))
    if order == "before":
        return " ".join([*asks, request])
    return ("\n" if order == "lines" else " ").join([request, *asks])


def _answer(brief: Brief, constraints: Sequence[Constraint]) -> str:
    wanted = (constraint.num_sentences for constraint in constraints)
    count = next(filter(None, wanted), brief.sampler.number(2, 3))
    draft = Draft(brief, sentences(brief.topic, count, brief.sampler))
    for constraint in constraints:
        constraint.shape(draft)
    text = draft.text
    for constraint in constraints:
        text = constraint.polish(text)
    return text
