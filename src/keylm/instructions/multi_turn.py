"""Two-turn tasks: the constraint is added in the second turn, or is set in the first turn and carried over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from keylm.instructions.constraints.base import Constraint, ConstraintContext
from keylm.instructions.constraints.catalog import ConstraintSet
from keylm.instructions.constraints.start_end import RepeatRequest
from keylm.instructions.phrasings import Phrasings
from keylm.instructions.requests import compose_prompt, invent_answer
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example, Task, assistant_message, user_message
from keylm.instructions.topics import sample_request, sample_sentences, sample_topic

REVISION_REQUESTS = Phrasings(
    train=(
        "Say that again in another way.",
        "Can you rewrite that?",
        "Please change your answer.",
        "Try again.",
        "I want another answer.",
        "Write it once more.",
        "Do it over.",
        "The same again, please.",
    ),
    held_out=(
        "Give me another version of that.",
        "Put it differently now.",
        "Answer my question anew.",
        "Now try it in another way.",
    ),
)
STANDING_ORDERS = Phrasings(
    train=(
        "From now on, always do this.",
        "Do the same in your next answers.",
        "Do this every time.",
        "This goes for all that I ask you.",
        "Remember it for my next questions.",
        "Always answer like this.",
        "Never forget this.",
        "I want this from now on.",
    ),
    held_out=(
        "This holds for every answer that you give me.",
        "Keep to this until I say otherwise.",
        "Do so in all of your later answers too.",
        "It is a rule for the whole conversation.",
    ),
)


def two_turn_makers(constraint_set: ConstraintSet) -> list[Callable[[Sampler], Example]]:
    """Both types of two-turn task for each constraint, except the one that repeats "the request": here are two."""
    return [
        partial(make, constraint_type)
        for constraint_type in constraint_set
        if constraint_type is not RepeatRequest
        for make in (added_constraint, carried_over_constraint)
    ]


def added_constraint(constraint_type: type[Constraint], sampler: Sampler) -> Example:
    """A plain request and its answer; the second turn asks for another answer that satisfies a constraint.

    user       Tell me about copper lanterns.
    assistant  Many people like copper lanterns. ...
    user       Try again. Use no commas.
    """
    while True:
        topic = sample_topic(sampler)
        context = ConstraintContext(topic.name, sample_request(topic, sampler), sampler)
        constraint = constraint_type.sample(context)
        first_answer = " ".join(sample_sentences(topic, 2, sampler))
        revision = f"{sampler.phrasing(REVISION_REQUESTS)} {constraint.render(sampler)}"
        messages = [user_message(context.request), assistant_message(first_answer), user_message(revision)]
        task = Task(messages, topic.name, (constraint,))
        answer = invent_answer(topic, context, (constraint,))
        if all(task.followed(answer)):
            return Example(task, answer)


def carried_over_constraint(constraint_type: type[Constraint], sampler: Sampler) -> Example:
    """A request under a constraint that is to hold from now on, and its answer; the second turn only names a topic.

    user       Tell me about copper lanterns. Use no commas. From now on, always do this.
    assistant  Many people like copper lanterns. ...
    user       What do you know about Varnel bridge?
    """
    while True:
        topics = sample_topic(sampler), sample_topic(sampler)
        contexts = [ConstraintContext(topic.name, sample_request(topic, sampler), sampler) for topic in topics]
        constraint = constraint_type.sample(contexts[0])
        first_request = compose_prompt(contexts[0].request, [constraint.render(sampler)], sampler)
        first_request += f" {sampler.phrasing(STANDING_ORDERS)}"
        answers = [
            invent_answer(topic, context, (constraint,)) for topic, context in zip(topics, contexts, strict=True)
        ]
        messages = [user_message(first_request), assistant_message(answers[0]), user_message(contexts[1].request)]
        task = Task(messages, topics[1].name, (constraint,))
        # The first answer counts too: a conversation in which the rule is broken would teach to break it.
        if all(task.followed(answer) == [True] for answer in answers):
            return Example(task, answers[1])
