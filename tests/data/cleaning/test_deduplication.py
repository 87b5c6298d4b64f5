"""Digests that came before: the same answers as a set's, in a tenth of its memory."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keylm.data.cleaning import deduplication
from keylm.data.cleaning.deduplication import DigestSet, ExactDeduplicator

digests = st.integers(0, 2**64 - 1) | st.integers(0, 20) | st.sampled_from([2**48 - 1, 2**48, 2**63, 2**64 - 1])


@given(numbers=st.lists(digests), limit=st.integers(1, 10))
def test_it_answers_as_a_set_does(numbers, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deduplication, "_MIN_RECENT", limit)
        ours, known = ExactDeduplicator(), set()
        for number in numbers:
            assert ours.add(number) == (number not in known)
            known.add(number)
            assert len(ours) == len(known)


@given(inside=st.sets(digests), outside=st.sets(digests))
def test_a_sorted_array_knows_its_numbers_and_no_others(inside, outside):
    array = DigestSet(np.array(sorted(inside), dtype=np.uint64))
    assert all(number in array for number in inside)
    assert not any(number in array for number in outside - inside)


def test_millions_of_digests_take_about_ten_bytes_each():
    count, ours, generator = 1_500_000, ExactDeduplicator(), random.Random(0)
    for _ in range(count):
        ours.add(generator.getrandbits(64))
    assert len(ours) == count
    # 90 bytes for each number in the set (32 of the number, 58 of its place), 8 for each in the array.
    assert 90 * len(ours._recent) + ours._merged.numbers.nbytes < 12 * count
