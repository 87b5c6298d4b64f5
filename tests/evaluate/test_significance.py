import random
from statistics import fmean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.evaluate.significance import (
    bootstrap_standard_error,
    not_significantly_above,
    significance_note,
    standard_error,
)


def test_the_standard_error_is_the_spread_of_scores() -> None:
    draw = random.Random(0)
    scores = [sum(draw.random() < 0.3 for _ in range(100)) / 100 for _ in range(4000)]
    assert standard_error(0.3, 100) == pytest.approx(pstdev(scores), rel=0.05)
    assert standard_error(0.3, 0) == 0


def test_baselines_are_named_best_first() -> None:
    baselines = {"empty": 0.0, "echo": 0.45, "constant": 0.42}
    assert not_significantly_above(0.5, 0.05, baselines) == ["echo", "constant"]
    assert not_significantly_above(0.5, 0.01, baselines) == []
    assert not_significantly_above(0.4, 0.01, baselines) == ["echo", "constant"]
    assert significance_note(["echo", "constant"]) == "not significantly above echo"
    assert significance_note([]) == ""


@given(st.floats(0, 1), st.integers(1, 1000))
def test_a_score_is_never_above_itself(share: float, count: int) -> None:
    assert not_significantly_above(share, standard_error(share, count), {"itself": share}) == ["itself"]


def test_without_an_error_higher_baselines_are_named() -> None:
    assert not_significantly_above(0.4, None, {"lower": 0.39, "equal": 0.4, "higher": 0.41}) == ["higher", "equal"]


def test_the_bootstrap_agrees_with_the_closed_form() -> None:
    items = [1] * 120 + [0] * 280
    assert bootstrap_standard_error(fmean, items) == pytest.approx(standard_error(0.3, 400), rel=0.1)
    assert bootstrap_standard_error(fmean, items) == bootstrap_standard_error(fmean, items)
    assert bootstrap_standard_error(fmean, [1]) is None


def test_the_bootstrap_resamples_whole_prompts() -> None:
    """Instructions of one prompt that stand and fall together count as one item."""

    def accuracy(prompts: list[list[bool]]) -> float:
        return fmean(followed for prompt in prompts for followed in prompt)

    prompts = [[True] * 4] * 30 + [[False] * 4] * 70
    assert bootstrap_standard_error(accuracy, prompts) == pytest.approx(standard_error(0.3, 100), rel=0.1)
