"""Rejected answers for preference training: a copy of a good answer that violates exactly one constraint."""

from __future__ import annotations

from random import Random

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example

_ATTEMPTS = 6
"""Changes to try for each constraint."""


def make_rejected(example: Example, rng: Random) -> str | None:
    """Change the example's answer so that exactly one of its constraints fails.

    The constraint is chosen at random. None if every change that was tried violates several of them or none.
    """
    constraints = [check for check in example.task.checks if isinstance(check, Constraint)]
    sampler = Sampler(rng)
    for constraint in rng.sample(constraints, len(constraints)):
        for _ in range(_ATTEMPTS):
            rejected = constraint.violate(example.answer, sampler)
            followed = example.task.followed(rejected)
            violated = [check for check, passed in zip(constraints, followed, strict=True) if not passed]
            # An empty answer fails every check, and with a single constraint that would look like the violation wanted.
            if violated == [constraint] and rejected.strip():
                return rejected
    return None
