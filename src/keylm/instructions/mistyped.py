"""Tasks whose user mistypes, except for the words that the answer is judged by."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from keylm.common.documents import Message
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.task import Example, Task, user_message
from keylm.typos.error_model import mistype, words

TYPO_PROBABILITY = 0.15
"""Probability that the user of a training conversation mistypes."""
RATES = (0.01, 0.06)
"""Smallest and largest fraction of characters that such a user mistypes."""


def maybe_mistype(example: Example, rng: Random) -> Example:
    """Mistype the user's messages with `TYPO_PROBABILITY`; the answer stays."""
    if rng.random() >= TYPO_PROBABILITY:
        return example
    return Example(mistyped_task(example.task, rng.uniform(*RATES), rng), example.answer)


def mistyped_task(task: Task, rate: float, rng: Random) -> Task:
    """The task with about a fraction `rate` of the characters in the user's messages mistyped.

    The words of the topic and the slots of the constraints (keywords, phrases, numbers) are kept: without them it would
    be another task.
    """
    slots = [str(slot) for check in task.checks if isinstance(check, Constraint) for slot in check.slots.values()]
    keep = words(" ".join([task.topic or "", *slots]))

    def mistyped_message(message: Message) -> Message:
        is_user = message["role"] == "user"
        return user_message(mistype(message["content"], rate, rng, keep)) if is_user else message

    return replace(task, messages=[mistyped_message(message) for message in task.messages])
