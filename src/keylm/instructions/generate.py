"""The generator of training conversations whose answers satisfy, by construction, what the user asks for.

Conversation `i` is a pure function of the seed, the constraint set and `i`.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from keylm.common.documents import Message
from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, ConstraintSet
from keylm.instructions.conversations import CONVERSATIONS
from keylm.instructions.copy_tasks import COPY_TASKS
from keylm.instructions.mistyped import maybe_mistype
from keylm.instructions.multi_turn import two_turn_makers
from keylm.instructions.requests import topic_request
from keylm.instructions.sampler import Sampler

SHARES = {"request": 0.58, "copy task": 0.22, "conversation": 0.10, "two turns": 0.10}
"""Fraction of the training conversations by type."""


def generate_conversations(
    num_documents: int, seed: int, constraint_set: ConstraintSet = BASIC_CONSTRAINTS
) -> Iterator[list[Message]]:
    """Generate the first `num_documents` training conversations."""
    for index in range(num_documents):
        yield conversation(seed, index, constraint_set)


def conversation(seed: int, index: int, constraint_set: ConstraintSet = BASIC_CONSTRAINTS) -> list[Message]:
    """Training conversation number `index`."""
    sampler = Sampler(Random(f"{seed}:{index}"))
    (document_type,) = sampler.rng.choices(list(SHARES), list(SHARES.values()))
    # Neither of these two is mistyped: nothing marks the words of a conversation that must stay, and what a copy task
    # copies has to be typed correctly.
    if document_type == "conversation":
        return sampler.choice(CONVERSATIONS)(sampler)
    if document_type == "copy task":
        return sampler.choice(COPY_TASKS)(sampler).document
    if document_type == "two turns":
        example = sampler.choice(two_turn_makers(constraint_set))(sampler)
    else:
        num_constraints = sampler.choice((0, 1, 1, 1, 2))
        example = topic_request(sampler, sampler.rng.sample(constraint_set, num_constraints))
    return maybe_mistype(example, sampler.rng).document
