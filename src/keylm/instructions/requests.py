"""Requests about a topic under constraints, with answers that follow them by construction."""

from __future__ import annotations

from collections.abc import Sequence

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Draft, are_compatible
from keylm.instructions.constraints.catalog import ALL_CONSTRAINTS
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task, user_message
from keylm.instructions.topics import Topic, request, sample_topic, sentences

ConstraintSet = Sequence[type[Constraint]]


def topic_request(sampler: Sampler, kinds: ConstraintSet = ()) -> Example:
    """A request about a topic under constraints of these kinds, and an answer that follows them.

    Kinds that do not go with one before them are left out. Chance can make a request that its answer fails (a
    forbidden word that is part of the topic): such a request is drawn again.
    """
    while True:
        topic = sample_topic(sampler)
        brief = ConstraintContext(topic.name, request(topic, sampler), sampler)
        constraints = tuple(kind.sample(brief) for kind in select_compatible(kinds))
        prompt = compose_prompt(brief.request, [constraint.phrase(sampler) for constraint in constraints], sampler)
        answer = respond(topic, brief, constraints)
        task = Task(user_message(prompt), topic.name, constraints)
        if all(task.followed(answer)):
            return Example(task, answer)


def respond(topic: Topic, brief: ConstraintContext, constraints: Sequence[Constraint]) -> str:
    """An answer about a topic that follows the constraints, but for bad luck."""
    wanted = (constraint.num_sentences for constraint in constraints)
    count = next(filter(None, wanted), brief.sampler.number(2, 3))
    return apply_constraints(constraints, Draft(brief, sentences(topic, count, brief.sampler)))


def select_compatible(kinds: ConstraintSet, most: int | None = None) -> list[type[Constraint]]:
    """The first kinds that go with all before them, in the order in which an answer is made to follow them."""
    chosen: list[type[Constraint]] = []
    for kind in kinds:
        if len(chosen) != most and all(are_compatible(kind, other) for other in chosen):
            chosen.append(kind)
    return sorted(chosen, key=ALL_CONSTRAINTS.index)


def compose_prompt(request: str, asks: Sequence[str], sampler: Sampler) -> str:
    """The request and what constrains it, in one of several orders."""
    if not asks:
        return request.rstrip(".") if sampler.chance(0.3) else request
    order = sampler.choice(("after", "after", "after", "before", "lines"))
    if order == "before":
        return " ".join([*asks, request])
    is_open = order == "lines" or request[-1] not in ".!?"
    return ("\n" if is_open else " ").join([request, *asks])


def apply_constraints(constraints: Sequence[Constraint], draft: Draft) -> str:
    """The answer that the constraints make of a draft."""
    for constraint in constraints:
        constraint.shape(draft)
    text = draft.text
    for constraint in constraints:
        text = constraint.polish(text)
    return text
