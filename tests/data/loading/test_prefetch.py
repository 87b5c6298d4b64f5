"""Reading ahead changes no batch, in whatever order they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.loading.loader import Batch
from keylm.data.loading.prefetch import PrefetchLoader

NUM_STEPS = 5


class Loader:
    """Batches that say what was asked for; there are `NUM_STEPS` steps."""

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        if step >= NUM_STEPS:
            raise IndexError(f"step {step}")
        tokens = np.array([[step, rank, world_size]])
        return Batch(tokens, np.full_like(tokens, IGNORE_INDEX), None, None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def prefetch() -> Iterator[PrefetchLoader]:
    with closing(PrefetchLoader(Loader(), NUM_STEPS)) as loader:  # type: ignore[arg-type]
        yield loader


@given(asked=st.lists(st.tuples(st.integers(0, NUM_STEPS - 1), st.integers(0, 2), st.just(3)), max_size=12))
def test_batches_are_those_of_the_loader(prefetch: PrefetchLoader, asked: list[tuple[int, int, int]]) -> None:
    for request in asked:
        assert prefetch.batch(*request).tokens.tolist() == [list(request)]


def test_steps_in_order_end_with_the_last(prefetch: PrefetchLoader) -> None:
    assert [prefetch.batch(step).tokens[0, 0] for step in range(NUM_STEPS)] == list(range(NUM_STEPS))


def test_an_error_is_raised_where_the_batch_is_asked_for(prefetch: PrefetchLoader) -> None:
    with pytest.raises(IndexError, match=f"step {NUM_STEPS}"):
        prefetch.batch(NUM_STEPS)
    assert prefetch.batch(0).tokens[0, 0] == 0
