"""The order of the data as a pure function: from a step's number to the sequences of its batch.

It keeps no state, so that resuming needs one integer and any step can be inspected:

* Which source comes next is read from a table of `PERIOD` slots, in which every source's turns are spread evenly
  (Sainte-Laguë's method). How often the source came before is then arithmetic.
* Training is divided into stretches in which the weights and the sequence length stay the same: a phase is one stretch,
  or several if sources reach their `max_epochs` in it.
* Which block of a source comes next is a permutation of its blocks, another one in every epoch: a Feistel network over
  block numbers (Luby and Rackoff 1988) with cycle walking (Black and Rogaway 2002), which needs no memory.
* A block is as long as the longest sequence. If sequences are shorter by a factor `num_parts`, the first parts of all
  blocks that are due come first, then the second parts, and so on, so that neighboring text is not seen together.

Every block comes once in every epoch of its source, with one exception: if a stretch of short sequences ends within a
block, the rest of that block, at most `num_parts - 1` parts per source, is skipped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from keylm.common.arrays import Array
from keylm.common.errors import UserError
from keylm.recipe.train import PhaseConfig

PERIOD = 10_000
"""Slots per table: shares are exact to 1 in 10,000."""

# Four rounds are what makes a Feistel network a strong pseudorandom permutation (Luby and Rackoff 1988).
_ROUNDS = 4
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class SequenceRef:
    """Where a sequence comes from: a part of a block of a source. `part` is 0 if sequences are as long as blocks."""

    source: str
    epoch: int
    block: int
    part: int


@dataclass(frozen=True)
class SequenceRefs:
    """Where the rows of a step come from, as columns (rows,) int64; `sources` are indices into `names`."""

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
    """Steps with one sequence length."""

    first_step: int
    first_sequence: int
    length: int
    """Tokens per sequence."""


@dataclass(frozen=True)
class _Stretch:
    """A range of sequences that follow one table."""

    start: int
    end: int
    num_parts: int
    table: _Table
    blocks_before: Array
    """Blocks of each source that were used up before the stretch: (sources,) int64."""
    blocks_used: Array
    """Blocks of each source that are used up in the stretch: (sources,) int64."""


class Mixture:
    """The order of all sequences of a training run.

    Args:
        num_blocks: number of blocks by source name.
        weights: share of tokens by source name, in any unit. The weight of a source without an entry in `num_blocks`
            goes to the others (see `redistribute`).
        categories: category by source name.
        max_epochs: how often the blocks of a source come at most, by its name; its weight then goes to the others.
        phases: the curriculum: phases of training with their own weights and sequence lengths.
        num_steps: number of steps.
        batch_tokens: tokens per step.
        sequence_length: tokens per block.
        seed: seed of the permutations.

    Raises:
        UserError: all sources reach their `max_epochs` before the end.
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
        self._max_blocks = np.array(
            [
                int(max_epochs[name] * size) if name in max_epochs else np.iinfo(np.int64).max
                for name, size in num_blocks.items()
            ]
        )
        self._categories = categories
        # By name, so that adding or removing a source does not reorder the others.
        digests = [hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest() for name in self.names]
        self._keys = np.array([int.from_bytes(digest) for digest in digests], dtype=np.uint64)
        self._phases: list[_Phase] = []
        self._stretches: list[_Stretch] = []
        self._plan(weights, phases or [PhaseConfig(until=1.0)])
        self._starts = np.array([stretch.start for stretch in self._stretches])

    def sequence_refs(self, step: int, rank: int = 0, world_size: int = 1) -> SequenceRefs:
        """Where the rows `rank`, `rank + world_size`, … of a step come from; steps count from 0."""
        phase = self._phase(step)
        num_rows = self.batch_tokens // phase.length
        sequences = self._first_sequence(step) + np.arange(rank, num_rows, world_size)
        # A step can reach over the end of a stretch, because a source may run out in the middle of it.
        stretches = np.searchsorted(self._starts, sequences, side="right") - 1
        columns = np.empty((4, len(sequences)), dtype=np.int64)
        for index in np.unique(stretches):
            columns[:, stretches == index] = self._locate(self._stretches[index], sequences[stretches == index])
        sources, epochs, blocks, parts = columns
        num_parts = self.sequence_length // phase.length
        return SequenceRefs(self.names, sources, epochs, blocks, parts, num_parts=num_parts, length=phase.length)

    def tokens(self, num_steps: int | None = None) -> dict[str, int]:
        """Exact number of tokens from each source in the first `num_steps` (default: all)."""
        end = self._first_sequence(self.num_steps if num_steps is None else num_steps)
        counts = np.zeros(len(self.names), dtype=np.int64)
        for stretch in self._stretches:
            num_sequences = max(0, min(end, stretch.end) - stretch.start)
            counts += stretch.table.counts(num_sequences) * (self.sequence_length // stretch.num_parts)
        return dict(zip(self.names, counts.tolist(), strict=True))

    def _phase(self, step: int) -> _Phase:
        return next(phase for phase in reversed(self._phases) if phase.first_step <= step)

    def _first_sequence(self, step: int) -> int:
        """Number of the first sequence of a step, counted from the start of training."""
        phase = self._phase(step)
        return phase.first_sequence + (step - phase.first_step) * (self.batch_tokens // phase.length)

    def _locate(self, stretch: _Stretch, sequences: Array) -> tuple[Array, Array, Array, Array]:
        """Source, epoch, block and part of sequences (n,) of one stretch, each (n,) int64.

        The table gives each sequence its source and the number of the source's turn. Take a source of 3 blocks, of
        which 1 was used before the stretch and 4 are used in it, in 2 parts each. The blocks of an epoch that are due
        in the stretch come with their first parts, and then with their second parts:

            turn         0  1  2  3 | 4  5  6  7
            epoch        0  0  0  0 | 1  1  1  1
            position     1  2  1  2 | 0  1  0  1    in the epoch's order; a permutation gives the block
            part         0  0  1  1 | 0  0  1  1
        """
        sources, turns = stretch.table.turns(sequences - stretch.start)
        size, num_parts = self._num_blocks[sources], stretch.num_parts
        before, used = stretch.blocks_before[sources], stretch.blocks_used[sources]
        epochs = (before * num_parts + turns) // (size * num_parts)
        # The blocks of this epoch that are due in this stretch, counted from the beginning of the source's first epoch.
        first, last = np.maximum(before, epochs * size), np.minimum(before + used, (epochs + 1) * size)
        parts, index = np.divmod(turns - (first - before) * num_parts, last - first)
        keys = _mix(self._keys[sources] + epochs.astype(np.uint64) * _GOLDEN)
        return sources, epochs, permute(first - epochs * size + index, size, keys), parts

    def _plan(self, weights: dict[str, float], phases: list[PhaseConfig]) -> None:
        """Fill `_phases` and `_stretches`."""
        step, sequence, blocks_before = 0, 0, np.zeros(len(self.names), dtype=np.int64)
        for phase in phases:
            length = phase.sequence_length or self.sequence_length
            # Phases change between steps, so that all rows of a batch have one length.
            last_step = round(phase.until * self.num_steps)
            self._phases.append(_Phase(step, sequence, length))
            end = sequence + (last_step - step) * (self.batch_tokens // length)
            while sequence < end:
                stretch = self._stretch({**weights, **phase.weights}, sequence, end, length, blocks_before)
                self._stretches.append(stretch)
                sequence, blocks_before = stretch.end, blocks_before + stretch.blocks_used
            step = last_step

    def _stretch(self, weights: dict[str, float], start: int, end: int, length: int, blocks_before: Array) -> _Stretch:
        """The stretch from `start` to `end`, or to where the first source reaches its `max_epochs`.

        Take two sources of equal weight, 100 sequences, and source `a` limited to 20 blocks. Its 20th turn is sequence
        38, so the first stretch ends there, and the rest of the phase is another stretch, in which `a` has no turns:

            sequence      0 1 2 3 ... 36 37 38 | 39 40 41 ... 99
            source        a b a b ...  a  b  a |  b  b  b ...  b
        """
        num_parts = self.sequence_length // length
        blocks_left = self._max_blocks - blocks_before
        available = {name for name, blocks in zip(self.names, blocks_left.tolist(), strict=True) if blocks > 0}
        shares = redistribute(weights, self._categories, set(weights) - available)
        if not any(shares.values()):
            phase = self._phases[-1]
            steps_done = phase.first_step + (start - phase.first_sequence) * phase.length / self.batch_tokens
            raise UserError(
                f"after {steps_done / self.num_steps:.1%} of training all sources have come `max_epochs` times: raise "
                f"it, give more text, or train on fewer tokens"
            )
        table = _Table([shares[name] for name in self.names])
        limited = np.flatnonzero((self._max_blocks < np.iinfo(np.int64).max) & (table.per_period > 0)).tolist()
        ends = [start + table.sequences_until(source, int(blocks_left[source]) * num_parts) for source in limited]
        end = min([end, *ends])
        # A block of which only some parts came is used up: the next stretch begins with another one.
        blocks_used = -(-table.counts(end - start) // num_parts)
        return _Stretch(start, end, num_parts, table, blocks_before, blocks_used)


class _Table:
    """Which source has its turn in each of `PERIOD` slots, which repeat.

    Turn `k` of a source with `n` turns per period stands at the fraction `(k + 1/2) / n` of it, and the turns of all
    sources are sorted by that fraction: weights of 2 and 1 give `a b a a b a …`.
    """

    def __init__(self, weights: list[float]) -> None:
        self.per_period = _round_to_sum(np.array(weights) / sum(weights) * PERIOD)
        sources = np.repeat(np.arange(len(weights)), self.per_period)
        ranks = np.concatenate([np.arange(count) for count in self.per_period])
        # Stable, so that ties go to the source that is listed first, on every machine.
        order = np.argsort((ranks + 0.5) / self.per_period[sources], kind="stable")
        self._sources, self._ranks = sources[order], ranks[order]

    def turns(self, sequences: Array) -> tuple[Array, Array]:
        """The source of each sequence, counted from the table's start, and how often it came before: (n,) each."""
        periods, slots = np.divmod(sequences, PERIOD)
        sources = self._sources[slots]
        return sources, periods * self.per_period[sources] + self._ranks[slots]

    def counts(self, num_sequences: int) -> Array:
        """How often each source comes in the first `num_sequences`: (sources,)."""
        periods, rest = divmod(num_sequences, PERIOD)
        in_last_period = np.bincount(self._sources[:rest], minlength=len(self.per_period))
        return np.asarray(periods * self.per_period + in_last_period)

    def sequences_until(self, source: int, turns: int) -> int:
        """Number of sequences up to and including turn number `turns` (counted from 1) of a source in the table."""
        periods, rank = divmod(turns - 1, int(self.per_period[source]))
        slot = np.flatnonzero((self._sources == source) & (self._ranks == rank))[0]
        return periods * PERIOD + int(slot) + 1


def redistribute(weights: dict[str, float], categories: dict[str, str], missing: set[str]) -> dict[str, float]:
    """The weights without the `missing` sources.

    The weight of each goes to the other sources of its category in proportion to theirs, or to all others if the
    category has none left. All weights are zero if no source is left.
    """
    present = {name: weight for name, weight in weights.items() if name not in missing and weight > 0}
    shares = {name: present.get(name, 0.0) for name in weights}
    for name in (name for name in weights if name in missing):
        same_category = {other: weight for other, weight in present.items() if categories[other] == categories[name]}
        heirs = same_category or present
        for heir, weight in heirs.items():
            shares[heir] += weights[name] * weight / sum(heirs.values())
    return shares


def permute(positions: Array, sizes: Array, keys: Array) -> Array:
    """Images of `positions` under pseudorandom permutations of `range(size)`.

    Takes constant memory, and any position at once. The Feistel network permutes a rectangle of just over `size`
    positions; an image outside of `range(size)` is permuted again until it is inside (cycle walking).

    Args:
        positions: position in its permutation: (n,) int64.
        sizes: size of each permutation: (n,) int64.
        keys: which permutation: (n,) uint64.

    Returns:
        (n,) int64.
    """
    sizes = sizes.astype(np.uint64)
    # Nearly a square, since halves of equal size mix best; less than one column of it is outside of `range(size)`.
    height = np.ceil(np.sqrt(sizes)).astype(np.uint64)
    width = (sizes + height - np.uint64(1)) // height
    upper, lower = np.divmod(positions.astype(np.uint64), width)
    for round_number in range(0, _ROUNDS, 2):
        upper = (upper + _round_function(keys, lower, round_number)) % height
        lower = (lower + _round_function(keys, upper, round_number + 1)) % width
    images = (upper * width + lower).astype(np.int64)
    outside = images >= sizes.astype(np.int64)
    if outside.any():
        images[outside] = permute(images[outside], sizes[outside], keys[outside])
    return np.asarray(images)


def _round_function(keys: Array, other_half: Array, round_number: int) -> Array:
    """63 bits that depend on the round's key and on the other half."""
    # Not 64: the sum with a half would wrap around, two positions could have one image, and a block would be skipped.
    return _mix(_mix(keys + np.uint64(round_number)) + other_half) >> np.uint64(1)


def _mix(x: Array) -> Array:
    """splitmix64 (Steele, Lea and Flood 2014), on uint64."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _round_to_sum(shares: Array) -> Array:
    """Integers with the same sum, each within one of its share: the largest remainders are rounded up."""
    counts = np.floor(shares).astype(np.int64)
    missing = round(shares.sum()) - int(counts.sum())
    counts[np.argsort(counts - shares, kind="stable")[:missing]] += 1
    return counts
