"""Samplers and prompts that several tests of the generated instructions share."""

import re
from functools import cache
from random import Random

import pytest

from keylm.instructions import copy_tasks, mistyped, topics
from keylm.instructions.constraints.catalog import ALL_CONSTRAINTS, TRAINED
from keylm.instructions.constraints.start_end import EndPhrase
from keylm.instructions.generate import generate_conversations
from keylm.instructions.phrasings import Phrasings
from keylm.instructions.sampler import Sampler


def make_sampler(seed: object, held_out: bool = False) -> Sampler:
    return Sampler(Random(str(seed)), new_words=held_out, new_phrasings=held_out)


@cache
def training_prompts() -> str:
    """What the users of training mean: a slip of the finger can make any word, as `ties` of `times`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mistyped, "TYPO_PROBABILITY", 0)
        return "\n".join(
            message["content"].lower()
            for document in [*generate_conversations(8000, 7), *generate_conversations(8000, 8, TRAINED)]
            for message in document
            if message["role"] == "user"
        )


def longest_literal(phrasing: str) -> str:
    """The longest stretch of a phrasing without a slot."""
    return max(re.split(r"\{\w*\}", phrasing.lower()), key=len).strip(' \n:.?"')


def all_phrasings() -> dict[str, Phrasings]:
    phrasings = {constraint_type.name: constraint_type.phrasings() for constraint_type in ALL_CONSTRAINTS} | {
        "endings": EndPhrase.endings
    }
    for module in (copy_tasks, topics):
        phrasings |= {name: value for name, value in vars(module).items() if isinstance(value, Phrasings)}
    return phrasings
