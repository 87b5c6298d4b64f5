"""From addresses to batches: how a token store is cut into blocks, and blocks are laid side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.data.loading.mixture import Mixture, SequenceRefs
from keylm.data.loading.packing import Sequences


@dataclass(frozen=True)
class Batch:
    """Rows for one step: each array (batch, time) of int64; targets of -100 are not learned from.

    `document_ids` numbers the documents of each row, padding last; None where attention runs across documents.
    """

    tokens: Array
    targets: Array
    document_ids: Array | None
    addresses: SequenceRefs


class Loader:
    """The global batch of any step, and any rank's share of it, made without the others'.

    Args:
        curriculum: the addresses.
        blocks: the stores by source name.
        padding: token behind the end of what a row holds.
        intra_document_masking: give the batches `document_ids`.
    """

    def __init__(
        self, curriculum: Mixture, blocks: dict[str, Sequences], padding: int, intra_document_masking: bool
    ) -> None:
        self.curriculum, self.blocks = curriculum, blocks
        self.padding, self.intra_document_masking = padding, intra_document_masking

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows `rank`, `rank + world_size`, … of step number `step`, counted from 0."""
        addresses = self.curriculum.addresses(step, rank, world_size)
        shape = (len(addresses), addresses.length)
        tokens, targets = np.full(shape, self.padding, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        for row, (blocks, *place) in enumerate(self._places(addresses)):
            found, following = blocks.read(*place)
            tokens[row, : len(found)], targets[row, : len(found)] = found, following
        return Batch(tokens, targets, self.segments(addresses) if self.intra_document_masking else None, addresses)

    def segments(self, addresses: SequenceRefs) -> Array:
        """Numbers of the documents of each row, (rows, time) of int64; padding has the number after the last."""
        segments = np.empty((len(addresses), addresses.length), dtype=np.int64)
        for row, (blocks, *place) in enumerate(self._places(addresses)):
            numbers = blocks.segments(*place)
            segments[row, : len(numbers)] = numbers
            segments[row, len(numbers) :] = numbers.max(initial=-1) + 1
        return segments

    def _places(self, addresses: SequenceRefs) -> Iterator[tuple[Sequences, int, int, int]]:
        """Where each row is read: its source's blocks, the block, the part, the parts per block."""
        blocks = [self.blocks[name] for name in addresses.names]
        columns = (addresses.sources, addresses.blocks, addresses.parts)
        for source, block, part in zip(*(column.tolist() for column in columns), strict=True):
            yield blocks[source], block, part, addresses.num_parts
