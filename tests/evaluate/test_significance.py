import random
from statistics import pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.evaluate.significance import remark, standard_error, within_noise


def test_the_standard_error_is_the_spread_of_many_scores() -> None:
    draw = random.Random(0)
    scores = [sum(draw.random() < 0.3 for _ in range(100)) / 100 for _ in range(4000)]
    assert standard_error(0.3, 100) == pytest.approx(pstdev(scores), rel=0.05)
    assert standard_error(0.3, 0) == 0


def test_null_answers_that_are_not_clearly_beaten_are_named_the_best_first() -> None:
    nulls = {"empty": 0.0, "echo": 0.45, "constant": 0.42}
    assert within_noise(0.5, 0.05, nulls) == ["echo", "constant"]
    assert within_noise(0.5, 0.01, nulls) == []
    assert within_noise(0.4, 0.01, nulls) == ["echo", "constant"]
    assert remark(["echo", "constant"]) == "within noise of echo"
    assert remark([]) == ""


@given(st.floats(0, 1), st.integers(1, 1000))
def test_a_score_never_beats_itself(share: float, count: int) -> None:
    assert within_noise(share, standard_error(share, count), {"itself": share}) == ["itself"]
