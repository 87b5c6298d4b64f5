"""Tasks whose user mistypes, except for the words that the answer is judged by."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from keylm.common.documents import Message
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.task import Example, Task, user_message
from keylm.instructions.wordings import spell
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
    constraints = [check for check in task.checks if isinstance(check, Constraint)]
    slots = [str(slot) for constraint in constraints for slot in constraint.slots.values()]
    numbers = [value for constraint in constraints for value in vars(constraint).values() if isinstance(value, int)]
    # `At most nine` is a way to say fewer than ten.
    spelled = [spell(near) for number in numbers for near in (number - 1, number, number + 1)]
    keep = words(" ".join([task.topic or "", *slots, *spelled]))

    def mistyped_message(message: Message) -> Message:
        is_user = message["role"] == "user"
        return user_message(mistype(message["content"], rate, rng, keep)) if is_user else message

    return replace(task, messages=[mistyped_message(message) for message in task.messages])
