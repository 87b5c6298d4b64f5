"""The parts of a source that tasks read, and how far a reader is."""

from hypothesis import given
from hypothesis import strategies as st

from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice


@given(items=st.lists(st.integers()), count=st.integers(1, 12))
def test_the_parts_of_all_tasks_are_the_whole_in_order_and_equally_large(items, count):
    parts = [SourceSlice(index, count).of(items) for index in range(count)]
    assert [item for part in parts for item in part] == items == FULL.of(items)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_share_is_known_with_its_total_and_never_more_than_all():
    reading = ReadProgress(done=3)
    assert reading.share is None
    reading.total = 4
    assert reading.share == 0.75
    reading.done = 5
    assert reading.share == 1
