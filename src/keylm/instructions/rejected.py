"""Broken twins: an answer that follows everything but one constraint, for training by preference."""

from __future__ import annotations

from random import Random

from keylm.instructions.constraints.base import Constraint
from keylm.instructions.sampler import Sampler
from keylm.instructions.task import Example

_ATTEMPTS = 6


def make_rejected(example: Example, rng: Random) -> str | None:
    """The example's answer, changed so that exactly one of its constraints is violated.

    Which one is chance; None where every small change breaks several of them or none.
    """
    constraints = [check for check in example.task.checks if isinstance(check, Constraint)]
    sampler = Sampler(rng)
    for chosen in rng.sample(constraints, len(constraints)):
        for _ in range(_ATTEMPTS):
            twin = chosen.spoil(example.answer, sampler)
            broken = [check for check, held in zip(constraints, example.task.followed(twin), strict=True) if not held]
            if broken == [chosen] and twin.strip():
                return twin
    return None
