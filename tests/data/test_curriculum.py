"""The order of the data: a permutation, shares, phases, ranks, and any step at once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.data.curriculum import Curriculum, permute
from keylm.recipe import Phase


@given(st.integers(1, 2000), st.text(max_size=8))
@settings(max_examples=60, deadline=None)
def test_permute_hits_every_place_once(size: int, key: str) -> None:
    assert sorted(permute(place, size, key) for place in range(size)) == list(range(size))


def test_permute_differs_by_key_and_is_not_nearly_sorted() -> None:
    images = [permute(place, 1000, "a") for place in range(1000)]
    assert images != [permute(place, 1000, "b") for place in range(1000)]
    rises = sum(after == before + 1 for before, after in pairwise(images))
    assert rises < 20


WEIGHTS = {"a": 0.3, "b": 0.3, "c": 0.25, "d": 0.05, "e": 0.1}


def test_shares_are_within_a_tenth_of_a_point_and_never_far_off() -> None:
    curriculum = Curriculum(dict.fromkeys(WEIGHTS, 1000), WEIGHTS, [], 100_000, seed=0)
    counts: Counter[str] = Counter()
    for sequence in range(30_000):
        counts[curriculum.address(sequence).source] += 1
        if sequence > 100:
            worst = max(abs(counts[name] - weight * (sequence + 1)) for name, weight in WEIGHTS.items())
            assert worst <= 2, sequence
    realised = curriculum.shares(30_000)
    assert realised == pytest.approx({name: counts[name] / 30_000 for name in WEIGHTS})
    million = Curriculum(dict.fromkeys(WEIGHTS, 1000), WEIGHTS, [], 1_000_000, seed=0).shares()
    assert million == pytest.approx(WEIGHTS, abs=1e-3)


def test_every_block_comes_once_per_epoch() -> None:
    curriculum = Curriculum({"a": 37, "b": 11}, {"a": 2, "b": 1}, [], 3000, seed=5)
    seen = Counter(curriculum.address(sequence) for sequence in range(3000))
    assert set(seen.values()) == {1}
    first_epoch = {address.block for address in seen if address.source == "a" and address.epoch == 0}
    assert first_epoch == set(range(37))
    orders = [[a.block for a in seen if a.source == "b" and a.epoch == epoch] for epoch in (0, 1)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_phases_change_the_mixture_and_go_on_where_a_source_was() -> None:
    phases = [Phase(until=0.5, weights={"b": 0}), Phase(until=1.0, weights={"a": 1, "b": 3})]
    curriculum = Curriculum({"a": 5000, "b": 5000}, {"a": 1, "b": 1}, phases, 4000, seed=0)
    sources = [curriculum.address(sequence).source for sequence in range(4000)]
    assert Counter(sources[:2000]) == {"a": 2000}
    assert Counter(sources[2000:]) == {"a": 500, "b": 1500}
    assert curriculum.shares() == {"a": 2500 / 4000, "b": 1500 / 4000}
    blocks = [curriculum.address(sequence) for sequence in range(4000)]
    assert len(set(blocks)) == 4000


@given(st.integers(0, 10**12))
@settings(deadline=None)
def test_any_step_is_reached_at_once(sequence: int) -> None:
    curriculum = _LONG
    assert curriculum.address(sequence) == curriculum.address(sequence)
    assert 0 <= curriculum.address(sequence).block < 10**9


_LONG = Curriculum({"a": 10**9, "b": 10**9}, {"a": 1, "b": 1}, [], 10**12, seed=0)
