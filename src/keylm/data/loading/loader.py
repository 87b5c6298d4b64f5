"""The loader: reads the sequences that the mixture names for a step, and makes a batch of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.data.loading.mixture import Mixture, SequenceRefs
from keylm.data.loading.packing import Sequences


@dataclass(frozen=True)
class Batch:
    """The rows of one step."""

    tokens: Array
    """Token ids, padded at the end of a row: (batch, time) int64."""
    targets: Array
    """The next token, or IGNORE_INDEX where there is no loss: (batch, time) int64."""
    document_ids: Array | None
    """Number of the document within the row, padding last: (batch, time) int64. None without document masking."""
    sequence_refs: SequenceRefs
    """Where the rows come from."""


class Loader:
    """Makes the global batch of any step, or one rank's share of it without making the others'.

    Args:
        mixture: the order of the data.
        sequences: the sources' sequences by name.
        padding: token id for the end of rows that are not full.
        intra_document_masking: give the batches `document_ids`.
    """

    def __init__(
        self, mixture: Mixture, sequences: dict[str, Sequences], padding: int, intra_document_masking: bool
    ) -> None:
        self.mixture, self.sequences = mixture, sequences
        self.padding, self.intra_document_masking = padding, intra_document_masking

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows `rank`, `rank + world_size`, … of a step, counted from 0."""
        # Rows are dealt to the ranks like cards, so the global batch is the same for any number of them.
        refs = self.mixture.sequence_refs(step, rank, world_size)
        shape = (len(refs), refs.length)
        tokens, targets = np.full(shape, self.padding, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        for row, (sequences, block, part) in enumerate(self._locations(refs)):
            row_tokens, row_targets = sequences.tokens_and_targets(block, part, refs.num_parts)
            # The rest of the row stays padding, whose targets carry no loss.
            tokens[row, : len(row_tokens)], targets[row, : len(row_tokens)] = row_tokens, row_targets
        return Batch(tokens, targets, self.document_ids(refs) if self.intra_document_masking else None, refs)

    def document_ids(self, refs: SequenceRefs) -> Array:
        """Numbers of the documents of each row: (rows, time) int64; padding is one more document."""
        document_ids = np.empty((len(refs), refs.length), dtype=np.int64)
        for row, (sequences, block, part) in enumerate(self._locations(refs)):
            numbers = sequences.document_ids(block, part, refs.num_parts)
            document_ids[row, : len(numbers)] = numbers
            # Padding is a document of its own, so that no token attends to it and it attends to no token.
            document_ids[row, len(numbers) :] = numbers.max(initial=-1) + 1
        return document_ids

    def _locations(self, refs: SequenceRefs) -> Iterator[tuple[Sequences, int, int]]:
        """What each row is read from: its source's sequences, the block and the part."""
        sequences = [self.sequences[name] for name in refs.names]
        columns = (refs.sources, refs.blocks, refs.parts)
        for source, block, part in zip(*(column.tolist() for column in columns), strict=True):
            yield sequences[source], block, part
