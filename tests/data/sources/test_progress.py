"""Slices of a source, and the progress of a reader."""

from hypothesis import given
from hypothesis import strategies as st

from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice


@given(items=st.lists(st.integers()), count=st.integers(1, 12))
def test_slices_are_the_whole_in_order_and_even(items, count):
    slices = [SourceSlice(index, count).select(items) for index in range(count)]
    assert [item for selected in slices for item in selected] == items == FULL.select(items)
    sizes = [len(selected) for selected in slices]
    assert max(sizes) - min(sizes) <= 1


def test_a_fraction_needs_a_total_and_is_at_most_one():
    progress = ReadProgress(done=3)
    assert progress.fraction is None
    progress.total = 4
    assert progress.fraction == 0.75
    progress.done = 5
    assert progress.fraction == 1


def test_counting_passes_items_on():
    progress = ReadProgress()
    assert [(item, progress.fraction) for item in progress.count("ab", total=2)] == [("a", 0.5), ("b", 1.0)]
