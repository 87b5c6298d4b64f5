from collections import Counter

from keylm.instructions.constraints.catalog import BASIC_CONSTRAINTS, CONSTRAINT_SETS, COPYING, HELD_OUT, TRAINED
from keylm.instructions.splits import held_out


def test_copying_constraints_are_drawn_most_often() -> None:
    every = CONSTRAINT_SETS["all"]
    assert set(every) == set(TRAINED)
    counts = Counter(every)
    assert {counts[constraint_type] for constraint_type in COPYING} == {3}
    assert {counts[constraint_type] for constraint_type in set(TRAINED) - set(COPYING)} == {1}
    assert held_out(200, 0, constraint_set=every) == held_out(200, 0, constraint_set=TRAINED)


def test_held_out_constraints_are_never_trained() -> None:
    assert len(HELD_OUT) >= 8
    assert not set(HELD_OUT) & {*BASIC_CONSTRAINTS, *TRAINED}
    assert len(TRAINED) >= 40
