"""Tasks in which the user mistypes, but for the words that an answer is judged by."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from random import Random

from keylm.common.documents import Message
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.task import Example, Task
from keylm.typos.error_model import mistype, words

TYPO_PROBABILITY = 0.15
"""Share of the conversations of training whose user mistypes."""
RATES = (0.01, 0.06)
"""Least and greatest share of the characters that such a user mistypes."""


def maybe_mistype(example: Example, rng: Random) -> Example:
    """The example as somebody typed it, who may have been in a hurry."""
    if rng.random() >= TYPO_PROBABILITY:
        return example
    return Example(mistyped_task(example.task, rng.uniform(*RATES), rng), example.answer)


def mistyped_task(task: Task, rate: float, rng: Random) -> Task:
    """The task with about a share of `rate` of the characters of the user's words mistyped.

    The words of the topic and what fills the slots of a constraint's phrasings (keywords, phrases, numbers) stay right:
    without them it would be another task.
    """
    slots = [str(slot) for check in task.checks if isinstance(check, Constraint) for slot in check.slots.values()]
    keep = words(" ".join([task.topic or "", *slots]))
    return replace(task, messages=[_mistyped_message(message, rate, rng, keep) for message in task.messages])


def _mistyped_message(message: Message, rate: float, rng: Random, keep: Set[str]) -> Message:
    if message["role"] != "user":
        return message
    return {"role": "user", "content": mistype(message["content"], rate, rng, keep)}
