"""The order of the data, as a pure function: sequence number in, address of a block out.

Two ideas, both free of state, so that resuming needs one integer and any step can be looked at:

* Which source comes next is read from a table of `PERIOD` slots per phase, filled so that at every slot each source's
  count is as close to its share as whole numbers allow (the largest deficit goes first, as in stride scheduling). A
  source's count before sequence `i` is then arithmetic.
* Which block of that source comes next is a permutation of its blocks, new in every epoch: a Feistel network over
  block numbers (Luby and Rackoff 1988) with cycle walking (Black and Rogaway 2002), which needs no memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from keylm.recipe import Phase

PERIOD = 10_000
"""Slots per table: shares are exact to 1 in 10,000."""

_ROUNDS = 4


@dataclass(frozen=True)
class Address:
    """Where a sequence comes from."""

    source: str
    epoch: int
    block: int


@dataclass(frozen=True)
class _Stretch:
    """A phase, in sequences: its first sequence, its table, and what each source had given before it."""

    start: int
    slots: np.ndarray
    rank: np.ndarray
    per_period: np.ndarray
    before: np.ndarray


class Curriculum:
    """The address of every sequence of a training run.

    Args:
        num_blocks: blocks by source name.
        weights: share of tokens by source name, in any unit.
        phases: stretches of training with weights of their own.
        num_sequences: length of training.
        seed: seed of the permutations.
    """

    def __init__(
        self,
        num_blocks: dict[str, int],
        weights: dict[str, float],
        phases: list[Phase],
        num_sequences: int,
        seed: int,
    ) -> None:
        self.names = list(num_blocks)
        self.num_blocks = num_blocks
        self.num_sequences = num_sequences
        self.seed = seed
        self._stretches = self._lay_out(weights, phases or [Phase(until=1.0, weights={})])

    def address(self, sequence: int) -> Address:
        """Address of sequence number `sequence`, counted from 0 over the whole run."""
        stretch = next(s for s in reversed(self._stretches) if s.start <= sequence)
        periods, slot = divmod(sequence - stretch.start, PERIOD)
        source = int(stretch.slots[slot])
        position = int(stretch.before[source] + periods * stretch.per_period[source] + stretch.rank[slot])
        name = self.names[source]
        epoch, place = divmod(position, self.num_blocks[name])
        return Address(name, epoch, permute(place, self.num_blocks[name], f"{self.seed}/{name}/{epoch}"))

    def shares(self, num_sequences: int | None = None) -> dict[str, float]:
        """Share of each source in the first `num_sequences` (default: all), exactly as they are drawn."""
        total = self.num_sequences if num_sequences is None else num_sequences
        stretch = next(s for s in reversed(self._stretches) if s.start <= max(total - 1, 0))
        counts = stretch.before + _counts(stretch, total - stretch.start)
        return {name: float(count) / max(total, 1) for name, count in zip(self.names, counts, strict=True)}

    def _lay_out(self, weights: dict[str, float], phases: list[Phase]) -> list[_Stretch]:
        stretches: list[_Stretch] = []
        start, before = 0, np.zeros(len(self.names), dtype=np.int64)
        for phase in phases:
            slots = _fill([{**weights, **phase.weights}[name] for name in self.names])
            stretch = _Stretch(start, slots, _rank(slots), np.bincount(slots, minlength=len(self.names)), before)
            stretches.append(stretch)
            end = round(phase.until * self.num_sequences)
            start, before = end, before + _counts(stretch, end - start)
        return stretches


def permute(place: int, size: int, key: str) -> int:
    """Image of `place` under the permutation of `range(size)` that `key` names; constant memory, any order."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for round_number in range(_ROUNDS):
            left, right = right, left ^ (_mix(f"{key}/{round_number}/{right}") & mask)
        place = (left << half) | right
        if place < size:
            return place


def _mix(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _fill(weights: list[float]) -> np.ndarray:
    """Source of each of `PERIOD` slots, at every slot as close to the shares as whole numbers allow."""
    shares = np.array(weights, dtype=np.float64) / sum(weights)
    given = np.zeros(len(shares))
    slots = np.empty(PERIOD, dtype=np.int64)
    for slot in range(PERIOD):
        chosen = int(np.argmax(np.where(shares > 0, shares * (slot + 1) - given, -np.inf)))
        slots[slot] = chosen
        given[chosen] += 1
    return slots


def _rank(slots: np.ndarray) -> np.ndarray:
    """How many earlier slots of the period hold the same source."""
    rank = np.empty_like(slots)
    for source in np.unique(slots):
        here = slots == source
        rank[here] = np.arange(here.sum())
    return rank


def _counts(stretch: _Stretch, num_sequences: int) -> np.ndarray:
    """How often each source comes in the first `num_sequences` of a stretch."""
    periods, rest = divmod(num_sequences, PERIOD)
    begun = np.bincount(stretch.slots[:rest], minlength=len(stretch.per_period))
    return np.asarray(periods * stretch.per_period + begun)
