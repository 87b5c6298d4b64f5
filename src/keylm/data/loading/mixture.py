"""The order of the data, as a pure function: a step's number in, the addresses of its rows out.

Free of state, so that resuming needs one integer and any step can be looked at:

* Which source comes next is read from a table of `PERIOD` slots, in which every source's turns are spread evenly
  (Sainte-Laguë's order). How often it came before is then arithmetic.
* Training is cut into stretches in which the weights and the length of a sequence stay the same: a phase is one, or
  several where sources reach their `max_epochs` in it.
* Which block of a source comes next is a permutation of its blocks, new in every epoch: a Feistel network over block
  numbers (Luby and Rackoff 1988) with cycle walking (Black and Rogaway 2002), which needs no memory.
* A block is as long as the longest sequence. Where sequences are shorter by a factor `parts`, the first parts of all
  blocks that are due come first, then the second parts, so that neighbours do not come together.

Every block comes once in every epoch of its source, with one exception: where a stretch of short sequences ends amid a
block, the rest of it, at most `parts - 1` parts of one block per source, is left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from keylm.common.errors import UserError
from keylm.recipe.train import PhaseConfig

Array = np.ndarray[Any, np.dtype[Any]]

PERIOD = 10_000
"""Slots per table: shares are exact to 1 in 10,000."""

_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class SequenceRef:
    """Where a sequence comes from: a part (0 where sequences are as long as blocks) of a block of a source."""

    source: str
    epoch: int
    block: int
    part: int


@dataclass(frozen=True)
class SequenceRefs:
    """The addresses of a step's rows as columns, each (rows,) of int64; `sources` are places in `names`."""

    names: list[str]
    sources: Array
    epochs: Array
    blocks: Array
    parts: Array
    num_parts: int
    """Parts per block."""
    length: int
    """Tokens per row."""

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, row: int) -> SequenceRef:
        name = self.names[self.sources[row]]
        return SequenceRef(name, int(self.epochs[row]), int(self.blocks[row]), int(self.parts[row]))


@dataclass(frozen=True)
class _Phase:
    """Steps with one length of sequences: the first step, its first sequence, and that length in tokens."""

    step: int
    sequence: int
    length: int


@dataclass(frozen=True)
class _Stretch:
    """Sequences `start` to `end`, drawn from one table; by source, the blocks given before it, and in it."""

    start: int
    end: int
    num_parts: int
    table: _Table
    before: Array
    given: Array


class Mixture:
    """The addresses of all sequences of a training run.

    Args:
        num_blocks: blocks by source name.
        weights: share of tokens by source name, in any unit; the weight of a source that has no entry in `num_blocks`
            goes to the others as `redistribute` says.
        categories: category by source name.
        max_epochs: by source name, how often its blocks come at most; its weight then goes to the others.
        phases: stretches of training with weights and lengths of their own. They change between steps.
        num_steps: length of training.
        batch_tokens: tokens per step.
        sequence_length: tokens per block.
        seed: seed of the permutations.

    Raises:
        UserError: every source has reached its `max_epochs` before the end.
    """

    def __init__(
        self,
        num_blocks: dict[str, int],
        weights: dict[str, float],
        *,
        categories: dict[str, str],
        max_epochs: dict[str, float],
        phases: list[PhaseConfig],
        num_steps: int,
        batch_tokens: int,
        sequence_length: int,
        seed: int,
    ) -> None:
        self.names = list(num_blocks)
        self.num_steps, self.batch_tokens, self.sequence_length = num_steps, batch_tokens, sequence_length
        self._num_blocks = np.array(list(num_blocks.values()), dtype=np.int64)
        self._limits = np.array(
            [
                int(max_epochs[name] * size) if name in max_epochs else np.iinfo(np.int64).max
                for name, size in num_blocks.items()
            ]
        )
        self._categories = categories
        self._keys = np.array([_hash(f"{seed}/{name}") for name in self.names], dtype=np.uint64)
        self._phases: list[_Phase] = []
        self._stretches: list[_Stretch] = []
        self._lay_out(weights, phases or [PhaseConfig(until=1.0)])
        self._starts = np.array([stretch.start for stretch in self._stretches])

    def addresses(self, step: int, rank: int = 0, world_size: int = 1) -> SequenceRefs:
        """Addresses of the rows `rank`, `rank + world_size`, … of step number `step`, counted from 0."""
        phase = next(phase for phase in reversed(self._phases) if phase.step <= step)
        num_rows = self.batch_tokens // phase.length
        sequences = phase.sequence + (step - phase.step) * num_rows + np.arange(rank, num_rows, world_size)
        indices = np.searchsorted(self._starts, sequences, side="right") - 1
        found = np.empty((4, len(sequences)), dtype=np.int64)
        for index in np.unique(indices):
            found[:, indices == index] = self._locate(self._stretches[index], sequences[indices == index])
        sources, epochs, blocks, parts = found
        return SequenceRefs(
            self.names,
            sources,
            epochs,
            blocks,
            parts,
            num_parts=self.sequence_length // phase.length,
            length=phase.length,
        )

    def tokens(self, num_steps: int | None = None) -> dict[str, int]:
        """Tokens of each source in the first `num_steps` (default: all), exactly as they are drawn."""
        end = self._sequence(self.num_steps if num_steps is None else num_steps)
        counts = np.zeros(len(self.names), dtype=np.int64)
        for stretch in self._stretches:
            inside = max(0, min(end, stretch.end) - stretch.start)
            counts += stretch.table.counts(inside) * (self.sequence_length // stretch.num_parts)
        return dict(zip(self.names, counts.tolist(), strict=True))

    def _sequence(self, step: int) -> int:
        """Number of the first sequence of a step."""
        phase = next(phase for phase in reversed(self._phases) if phase.step <= step)
        return phase.sequence + (step - phase.step) * (self.batch_tokens // phase.length)

    def _locate(self, stretch: _Stretch, sequences: Array) -> tuple[Array, Array, Array, Array]:
        """Source, epoch, block and part of sequences (n,) of one stretch."""
        sources, turns = stretch.table.turns(sequences - stretch.start)
        size, before, given = self._num_blocks[sources], stretch.before[sources], stretch.given[sources]
        epochs = (before * stretch.num_parts + turns) // (size * stretch.num_parts)
        # The blocks of this epoch that are due in this stretch; first the first part of each, then the second…
        first, last = np.maximum(before, epochs * size), np.minimum(before + given, (epochs + 1) * size)
        parts, index = np.divmod(turns - (first - before) * stretch.num_parts, last - first)
        keys = _mix(self._keys[sources] + epochs.astype(np.uint64) * _GOLDEN)
        return sources, epochs, permute(first - epochs * size + index, size, keys), parts

    def _lay_out(self, weights: dict[str, float], phases: list[PhaseConfig]) -> None:
        step, sequence, before = 0, 0, np.zeros(len(self.names), dtype=np.int64)
        for phase in phases:
            length = phase.sequence_length or self.sequence_length
            last_step = round(phase.until * self.num_steps)
            self._phases.append(_Phase(step, sequence, length))
            end = sequence + (last_step - step) * (self.batch_tokens // length)
            while sequence < end:
                stretch = self._stretch({**weights, **phase.weights}, sequence, end, length, before)
                self._stretches.append(stretch)
                sequence, before = stretch.end, before + stretch.given
            step = last_step

    def _stretch(self, weights: dict[str, float], start: int, end: int, length: int, before: Array) -> _Stretch:
        """From `start` to `end`, or to where the next source reaches its limit."""
        num_parts = self.sequence_length // length
        left = self._limits - before
        available = {name for name, blocks in zip(self.names, left.tolist(), strict=True) if blocks > 0}
        shares = redistribute(weights, self._categories, set(weights) - available)
        if not any(shares.values()):
            raise UserError(
                f"after {self._done(start):.1%} of training all sources have come `max_epochs` times: raise it, "
                f"give more text, or train on fewer tokens"
            )
        table = _Table([shares[name] for name in self.names])
        limited = np.flatnonzero((self._limits < np.iinfo(np.int64).max) & (table.per_period > 0))
        ends = [start + table.sequences_until(source, int(left[source]) * num_parts) for source in limited.tolist()]
        end = min([end, *ends])
        return _Stretch(start, end, num_parts, table, before, -(-table.counts(end - start) // num_parts))

    def _done(self, sequence: int) -> float:
        phase = self._phases[-1]
        return (phase.step + (sequence - phase.sequence) * phase.length / self.batch_tokens) / self.num_steps


class _Table:
    """Whose turn it is in each of `PERIOD` slots, over and over."""

    def __init__(self, weights: list[float]) -> None:
        self.per_period = _whole(np.array(weights) / sum(weights) * PERIOD)
        sources = np.repeat(np.arange(len(weights)), self.per_period)
        ranks = np.concatenate([np.arange(count) for count in self.per_period])
        order = np.argsort((ranks + 0.5) / self.per_period[sources], kind="stable")
        self._sources, self._ranks = sources[order], ranks[order]

    def turns(self, sequences: Array) -> tuple[Array, Array]:
        """The source of each sequence (n,), counted from the table's start, and how many of it came before."""
        periods, slots = np.divmod(sequences, PERIOD)
        sources = self._sources[slots]
        return sources, periods * self.per_period[sources] + self._ranks[slots]

    def counts(self, num_sequences: int) -> Array:
        """How often each source comes in the first `num_sequences`."""
        periods, rest = divmod(num_sequences, PERIOD)
        begun = np.bincount(self._sources[:rest], minlength=len(self.per_period))
        return np.asarray(periods * self.per_period + begun)

    def sequences_until(self, source: int, turns: int) -> int:
        """Sequences until a source, which is in the table, has had so many turns, the last of them included."""
        periods, rank = divmod(turns - 1, int(self.per_period[source]))
        slot = np.flatnonzero((self._sources == source) & (self._ranks == rank))[0]
        return periods * PERIOD + int(slot) + 1


def redistribute(weights: dict[str, float], categories: dict[str, str], gone: set[str]) -> dict[str, float]:
    """The weights without the sources that are gone.

    The weight of each goes to the others of its category in proportion to theirs, or to all others where the category
    has none left. All weights are zero where nobody is left.
    """
    left = {name: weight for name, weight in weights.items() if name not in gone and weight > 0}
    shares = {name: left.get(name, 0.0) for name in weights}
    for name in (name for name in weights if name in gone):
        siblings = {other: weight for other, weight in left.items() if categories[other] == categories[name]}
        heirs = siblings or left
        for heir, weight in heirs.items():
            shares[heir] += weights[name] * weight / sum(heirs.values())
    return shares


def permute(places: Array, sizes: Array, keys: Array) -> Array:
    """Images of `places` under the permutations of `range(size)` that `keys` name; all (n,), keys of uint64.

    Constant memory, any order. The network turns a rectangle of just over `size` places, so it rarely has to walk on.
    """
    sizes = sizes.astype(np.uint64)
    height = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    width = (sizes + height - np.uint64(1)) // height
    upper, lower = np.divmod(places.astype(np.uint64), width)
    for round_number in range(0, _ROUNDS, 2):
        upper = (upper + _half(keys, lower, round_number)) % height
        lower = (lower + _half(keys, upper, round_number + 1)) % width
    images = (upper * width + lower).astype(np.int64)
    outside = images >= sizes.astype(np.int64)
    if outside.any():
        images[outside] = permute(images[outside], sizes[outside], keys[outside])
    return np.asarray(images)


def _half(keys: Array, other: Array, round_number: int) -> Array:
    """63 bits that depend on a round's key and the other half."""
    return _mix(_mix(keys + np.uint64(round_number)) + other) >> np.uint64(1)


def _mix(x: Array) -> Array:
    """splitmix64 (Steele, Lea and Flood 2014), on uint64."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _whole(shares: Array) -> Array:
    """Whole numbers with the same sum, each within one of its share: the largest remainders are rounded up."""
    counts = np.floor(shares).astype(np.int64)
    missing = round(shares.sum()) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return counts
