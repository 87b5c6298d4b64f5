"""Requests about a topic under constraints, with answers that satisfy them by construction.

request          "Tell me about copper lanterns."
constraints      Bullets(count=2), Uppercase()
prompt           "Tell me about copper lanterns. Write two bullet points. The text must be in capital letters."
answer           "- MANY PEOPLE LIKE COPPER LANTERNS.\\n- WHEN IT RAINS, COPPER LANTERNS LOOK WARM."
"""

from __future__ import annotations

from collections.abc import Sequence

from keylm.instructions.constraints.base import Constraint, ConstraintContext, Draft, are_compatible
from keylm.instructions.constraints.catalog import ALL_CONSTRAINTS, ConstraintSet
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task, user_message
from keylm.instructions.topics import Topic, sample_request, sample_sentences, sample_topic


def topic_request(sampler: Sampler, constraint_types: ConstraintSet = ()) -> Example:
    """A request about a random topic under constraints of the given types, and an answer that satisfies them.

    A type that conflicts with an earlier one is left out. By chance an answer can fail (a forbidden word that is part
    of the topic): then everything is drawn again.
    """
    while True:
        topic = sample_topic(sampler)
        context = ConstraintContext(topic.name, sample_request(topic, sampler), sampler)
        constraints = tuple(selected.sample(context) for selected in select_compatible(constraint_types))
        instructions = [constraint.render(sampler) for constraint in constraints]
        prompt = compose_prompt(context.request, instructions, sampler)
        answer = invent_answer(topic, context, constraints)
        task = Task([user_message(prompt)], topic.name, constraints)
        if all(task.followed(answer)):
            return Example(task, answer)


def invent_answer(topic: Topic, context: ConstraintContext, constraints: Sequence[Constraint]) -> str:
    """Invent an answer about a topic and apply the constraints to it. The caller has to check it."""
    # Constraints that care about the number of sentences conflict, so at most one of them asks for a number.
    lengths = (constraint.num_sentences for constraint in constraints)
    num_sentences = next(filter(None, lengths), context.sampler.number(2, 3))
    return apply_constraints(constraints, Draft(context, sample_sentences(topic, num_sentences, context.sampler)))


def select_compatible(
    constraint_types: ConstraintSet, limit: int | None = None, unless: frozenset[str] = frozenset()
) -> list[type[Constraint]]:
    """The first types, at most `limit`, that are compatible with all before them, in the order of application.

    Args:
        unless: Aspects that several of them may occupy, because the caller tries again where the answer then fails.
    """
    selected: list[type[Constraint]] = []
    for candidate in constraint_types:
        if len(selected) != limit and all(are_compatible(candidate, other, unless) for other in selected):
            selected.append(candidate)
    return sorted(selected, key=ALL_CONSTRAINTS.index)


def compose_prompt(request: str, instructions: Sequence[str], sampler: Sampler) -> str:
    """Join the request and its instructions: instructions last (mostly), first, or each on a line of its own."""
    if not instructions:
        return request.rstrip(".") if sampler.chance(0.3) else request
    order = sampler.choice(("after", "after", "after", "before", "lines"))
    if order == "before":
        return " ".join([*instructions, request])
    # A request without a final mark would run into the first instruction.
    needs_lines = order == "lines" or request[-1] not in ".!?"
    return ("\n" if needs_lines else " ").join([request, *instructions])


def apply_constraints(constraints: Sequence[Constraint], draft: Draft) -> str:
    """Apply the constraints, in order, to the draft and then to its text."""
    # All drafts first: capitals or JSON must also cover what other constraints add.
    for constraint in constraints:
        constraint.apply_to_draft(draft)
    text = draft.text
    for constraint in constraints:
        text = constraint.apply_to_text(text)
    return text
