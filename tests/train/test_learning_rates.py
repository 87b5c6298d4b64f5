"""Learning rates derived from width and batch size, by the rules in the module's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.learning_rates import peak_learning_rates

WIDTHS = st.integers(8, 8192)
BATCHES = st.integers(64, 10_000_000)


@given(WIDTHS, BATCHES)
def test_rates_scale_with_the_width(width: int, batch: int) -> None:
    for optimizer_type, falling in (("muon", {"head"}), ("adamw", {"head", "hidden"})):
        narrow, wide = (
            peak_learning_rates(OptimizerConfig(type=optimizer_type), size, batch) for size in (width, 2 * width)
        )
        assert {role: wide[role] / narrow[role] for role in wide} == pytest.approx(
            {role: 0.5 if role in falling else 1.0 for role in wide}
        )


@given(WIDTHS, st.integers(64, 200))
def test_rates_scale_with_the_root_of_a_small_batch(width: int, batch: int) -> None:
    small, larger = (peak_learning_rates(OptimizerConfig(), width, size) for size in (batch, 4 * batch))
    assert all(larger[role] / small[role] == pytest.approx(2, rel=0.1) for role in small)


@given(WIDTHS, BATCHES)
def test_rates_are_bounded_for_large_batches(width: int, batch: int) -> None:
    at_most = peak_learning_rates(OptimizerConfig(), width, 10**12)
    assert all(rate <= at_most[role] for role, rate in peak_learning_rates(OptimizerConfig(), width, batch).items())
    assert at_most["embedding"] == pytest.approx(
        3 * peak_learning_rates(OptimizerConfig(), width, 4096)["embedding"], rel=1e-4
    )


def test_recipe_overrides_derived_rates() -> None:
    derived = peak_learning_rates(OptimizerConfig(), 256, 4096)
    doubled = peak_learning_rates(OptimizerConfig(learning_rate_scale=2.0), 256, 4096)
    assert doubled == pytest.approx({role: 2 * rate for role, rate in derived.items()})
    given_one = peak_learning_rates(OptimizerConfig(learning_rate_scale=2.0, learning_rates={"head": 0.5}), 256, 4096)
    assert given_one == {**doubled, "head": 0.5}
