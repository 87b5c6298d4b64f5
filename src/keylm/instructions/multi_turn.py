"""Conversations of two turns in which the constraint stands in one and the topic in the other."""

from __future__ import annotations

from keylm.instructions.constraints.base import Constraint, ConstraintContext
from keylm.instructions.requests import compose_prompt, respond
from keylm.instructions.sampler import Phrasings, Sampler
from keylm.instructions.task import Example, Task, assistant_message, user_message
from keylm.instructions.topics import request, sample_topic, sentences

ANEW = Phrasings(
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
KEEP = Phrasings(
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


def asked_later(kind: type[Constraint], sampler: Sampler) -> Example:
    """A request about a topic and an answer; the second turn asks for another answer, under a constraint."""
    while True:
        topic = sample_topic(sampler)
        brief = ConstraintContext(topic.name, request(topic, sampler), sampler)
        constraint = kind.sample(brief)
        first = " ".join(sentences(topic, 2, sampler))
        second = f"{sampler.one_of(ANEW)} {constraint.phrase(sampler)}"
        task = Task(
            [*user_message(brief.request), assistant_message(first), *user_message(second)], topic.name, (constraint,)
        )
        answer = respond(topic, brief, (constraint,))
        if all(task.followed(answer)):
            return Example(task, answer)


def still_asked(kind: type[Constraint], sampler: Sampler) -> Example:
    """A request under a constraint that is to hold from now on, and its answer; the second turn has a new topic."""
    while True:
        topics = sample_topic(sampler), sample_topic(sampler)
        briefs = [ConstraintContext(topic.name, request(topic, sampler), sampler) for topic in topics]
        constraint = kind.sample(briefs[0])
        first = f"{compose_prompt(briefs[0].request, [constraint.phrase(sampler)], sampler)} {sampler.one_of(KEEP)}"
        answers = [respond(topic, brief, (constraint,)) for topic, brief in zip(topics, briefs, strict=True)]
        task = Task(
            [*user_message(first), assistant_message(answers[0]), *user_message(briefs[1].request)],
            topics[1].name,
            (constraint,),
        )
        if all(task.followed(answer) == [True] for answer in answers):
            return Example(task, answers[1])
