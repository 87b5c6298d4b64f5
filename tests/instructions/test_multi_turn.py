import pytest
from helpers.instruction_samples import make_sampler

from keylm.instructions import multi_turn
from keylm.instructions.constraints.base import Constraint
from keylm.instructions.constraints.catalog import (
    TRAINED,
)
from keylm.instructions.constraints.start_end import RepeatRequest


@pytest.mark.parametrize(
    "constraint_type",
    [constraint_type for constraint_type in TRAINED if constraint_type is not RepeatRequest],
    ids=lambda constraint_type: constraint_type.name,
)
def test_two_turn_answers_follow(constraint_type: type[Constraint]) -> None:
    for turn in (multi_turn.added_constraint, multi_turn.carried_over_constraint):
        for seed in range(10):
            example = turn(constraint_type, make_sampler(seed, held_out=True))
            assert example.task.followed(example.answer) == [True]
            assert example.task.names_topic(example.answer) or constraint_type.name in (
                "all capitals",
                "JSON with a key",
            )
