"""The order of the data: a permutation, shares, phases, lengths, limits, ranks, and any step at once."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.common.errors import UserError
from keylm.data.loading.mixture import Mixture, SequenceRef, SequenceRefs, permute, redistribute
from keylm.recipe.train import PhaseConfig

WEIGHTS = {"a": 0.3, "b": 0.3, "c": 0.25, "d": 0.05, "e": 0.1}


def made(num_blocks: dict[str, int], weights: dict[str, float], num_steps: int, **changes: Any) -> Mixture:
    """Ten rows of 8 tokens a step, all sources in one category, unless told otherwise."""
    given = {"max_epochs": {}, "phases": [], "batch_tokens": 80, "sequence_length": 8, "seed": 5, **changes}
    categories = given.pop("categories", dict.fromkeys(weights, "formal"))
    return Mixture(num_blocks, weights, categories=categories, num_steps=num_steps, **given)


def drawn(mixture: Mixture, first: int = 0, last: int | None = None) -> list[SequenceRef]:
    """The references of all rows of some steps."""
    steps = range(first, mixture.num_steps if last is None else last)
    return [ref for step in steps for ref in listed(mixture.sequence_refs(step))]


def listed(refs: SequenceRefs) -> list[SequenceRef]:
    """The references of the rows, one by one."""
    return [refs[row] for row in range(len(refs))]


def images(size: int, key: int) -> list[int]:
    return permute(np.arange(size), np.full(size, size), np.full(size, key, dtype=np.uint64)).tolist()


@given(st.integers(1, 2000), st.integers(0, 2**64 - 1))
@settings(max_examples=100, deadline=None)
def test_permute_hits_every_place_once(size: int, key: int) -> None:
    assert sorted(images(size, key)) == list(range(size))


def test_permute_differs_by_key_and_is_not_nearly_sorted() -> None:
    first = images(1000, 1)
    assert first != images(1000, 2)
    assert sum(after == before + 1 for before, after in pairwise(first)) < 20
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.15


def test_shares_of_a_million_sequences_are_exact() -> None:
    mixture = made(dict.fromkeys(WEIGHTS, 1000), WEIGHTS, 100, batch_tokens=80_000)
    counts = np.zeros(len(WEIGHTS))
    for step in range(100):
        counts += np.bincount(mixture.sequence_refs(step).sources, minlength=len(WEIGHTS))
    assert counts.sum() == 1e6
    assert dict(zip(WEIGHTS, counts / 1e6, strict=True)) == pytest.approx(WEIGHTS, abs=1e-3)
    assert mixture.tokens() == dict(zip(WEIGHTS, (counts * 8).tolist(), strict=True))


def test_shares_are_never_far_off() -> None:
    mixture = made(dict.fromkeys(WEIGHTS, 1000), WEIGHTS, 1, batch_tokens=240_000)
    sources = mixture.sequence_refs(0).sources
    for index, weight in enumerate(WEIGHTS.values()):
        off = np.cumsum(sources == index) - weight * np.arange(1, len(sources) + 1)
        assert abs(off).max() <= 2


@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    weights=st.tuples(st.floats(0.1, 1), st.floats(0.1, 1)),
    length=st.sampled_from([1, 2, 4, 8]),
    num_steps=st.integers(1, 40),
)
@settings(max_examples=60, deadline=None)
def test_every_part_of_every_block_comes_once_per_epoch(sizes, weights, length, num_steps) -> None:
    phases = [PhaseConfig(until=1.0, sequence_length=length)]
    mixture = made(dict(zip("ab", sizes, strict=True)), dict(zip("ab", weights, strict=True)), num_steps, phases=phases)
    seen = Counter(drawn(mixture))
    assert set(seen.values()) == {1}
    for name, size in zip("ab", sizes, strict=True):
        own = [ref for ref in seen if ref.source == name]
        for epoch in range(max((ref.epoch for ref in own), default=0)):
            places = {(ref.block, ref.part) for ref in own if ref.epoch == epoch}
            assert places == {(block, part) for block in range(size) for part in range(8 // length)}


def test_every_epoch_has_an_order_of_its_own() -> None:
    seen = drawn(made({"a": 37}, {"a": 1}, 30))
    orders = [[ref.block for ref in seen if ref.epoch == epoch] for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(37))
    assert orders[0] != orders[1]


def test_phases_change_the_mixture_but_not_the_epoch() -> None:
    phases = [PhaseConfig(until=0.5, weights={"b": 0}), PhaseConfig(until=1.0, weights={"a": 1, "b": 3})]
    mixture = made({"a": 5000, "b": 5000}, {"a": 1, "b": 1}, 400, phases=phases)
    assert Counter(ref.source for ref in drawn(mixture, 0, 200)) == {"a": 2000}
    assert Counter(ref.source for ref in drawn(mixture, 200, 400)) == {"a": 500, "b": 1500}
    assert mixture.tokens(300) == {"a": 2250 * 8, "b": 750 * 8}
    assert len(set(drawn(mixture))) == 4000


def test_short_sequences_skip_at_most_the_rest_of_a_block() -> None:
    phases = [PhaseConfig(until=0.55, sequence_length=2), PhaseConfig(until=1.0)]
    mixture = made({"a": 1000, "b": 1000}, {"a": 2, "b": 1}, 40, phases=phases)
    assert [len(mixture.sequence_refs(step)) for step in (0, 21, 22, 39)] == [40, 40, 10, 10]
    short, long = drawn(mixture, 0, 22), drawn(mixture, 22)
    assert {ref.part for ref in short} == {0, 1, 2, 3}
    assert {ref.part for ref in long} == {0}
    tokens = sum(mixture.tokens().values())
    assert tokens == 40 * 80
    for name in ("a", "b"):
        begun = {ref.block for ref in short if ref.source == name}
        assert not begun & {ref.block for ref in long if ref.source == name}
        given = sum(ref.source == name for ref in short)
        assert 0 <= 4 * len(begun) - given <= 3
    parts = [ref.part for ref in short if ref.source == "a"]
    assert parts == sorted(parts)


def test_max_epochs_holds_and_the_category_takes_over() -> None:
    categories = {"a": "formal", "b": "formal", "c": "casual"}
    mixture = made(
        {"a": 20, "b": 500, "c": 500}, {"a": 2, "b": 1, "c": 3}, 60, categories=categories, max_epochs={"a": 2.5}
    )
    seen = drawn(mixture)
    given = Counter(ref.source for ref in seen)
    assert given["a"] == 50
    assert given["c"] == pytest.approx(300, abs=2)
    times = Counter(ref.block for ref in seen if ref.source == "a")
    assert sorted(times.values()) == [2] * 10 + [3] * 10
    assert {name: count * 8 for name, count in given.items()} == mixture.tokens()
    late = Counter(ref.source for ref in drawn(mixture, 30))
    assert late == pytest.approx({"b": 150, "c": 150}, abs=2)


def test_limits_hold_across_phases_and_lengths() -> None:
    phases = [
        PhaseConfig(until=0.3, sequence_length=4),
        PhaseConfig(until=0.6, weights={"b": 5}),
        PhaseConfig(until=1.0),
    ]
    limits = {"a": 1.0, "b": 3.0}
    seen = drawn(made({"a": 30, "b": 10, "c": 99}, {"a": 1, "b": 1, "c": 1}, 60, phases=phases, max_epochs=limits))
    assert max(Counter(seen).values()) == 1
    for name, limit in limits.items():
        assert max(ref.epoch for ref in seen if ref.source == name) == limit - 1


def test_when_all_sources_are_used_up_the_way_out_is_named() -> None:
    with pytest.raises(UserError, match=r"after 50.0% of training all sources have come `max_epochs` times"):
        made({"a": 25, "b": 25}, {"a": 1, "b": 3}, 10, max_epochs={"a": 1, "b": 1})


def test_a_source_without_blocks_gives_its_weight_away() -> None:
    categories = {"a": "formal", "b": "formal", "c": "casual"}
    mixture = made({"b": 100, "c": 100}, {"a": 2, "b": 1, "c": 1}, 10, categories=categories)
    assert mixture.tokens() == {"b": 600, "c": 200}


def test_redistribute() -> None:
    weights, categories = {"a": 4.0, "b": 1.0, "c": 3.0, "d": 2.0}, {"a": "x", "b": "x", "c": "x", "d": "y"}
    assert redistribute(weights, categories, set()) == weights
    assert redistribute(weights, categories, {"a"}) == {"a": 0, "b": 2, "c": 6, "d": 2}
    assert redistribute(weights, categories, {"d"}) == {"a": 5, "b": 1.25, "c": 3.75, "d": 0}
    assert redistribute(weights, categories, {"a", "b", "c"}) == {"a": 0, "b": 0, "c": 0, "d": 10}
    assert not any(redistribute(weights, categories, set(weights)).values())


@given(world_size=st.integers(1, 64), step=st.integers(0, 199))
@settings(max_examples=60, deadline=None)
def test_ranks_share_the_same_global_batch(world_size: int, step: int) -> None:
    phases = [PhaseConfig(until=0.5, sequence_length=2), PhaseConfig(until=1.0, weights={"a": 9})]
    mixture = made({"a": 50, "b": 70}, {"a": 1, "b": 2}, 200, phases=phases, max_epochs={"a": 3})
    whole = drawn(mixture, step, step + 1)
    for rank in range(world_size):
        assert listed(mixture.sequence_refs(step, rank, world_size)) == whole[rank::world_size]


def test_any_step_is_reached_at_once() -> None:
    """Sequence 10^15: after that many, a quarter from one source of 10^9 blocks and three quarters from another."""
    long = made({"a": 10**9, "b": 10**9}, {"a": 1, "b": 3}, 10**14)
    last = drawn(long, 10**14 - 1)
    assert {(ref.source, ref.epoch) for ref in last} == {("a", 249_999), ("b", 749_999)}
    assert len({(ref.source, ref.block) for ref in last}) == 10
    assert all(0 <= ref.block < 10**9 for ref in last)
