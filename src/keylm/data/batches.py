"""From addresses to batches: how a token store is cut into blocks, and blocks are laid side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from keylm.data.curriculum import Address, Curriculum
from keylm.data.store import TokenStore

IGNORED = -100
"""Target of a position that is not learned from."""


@dataclass(frozen=True)
class Sequence:
    """One row of a batch: tokens, targets and document numbers, each (time,) of int64."""

    tokens: np.ndarray
    targets: np.ndarray
    segments: np.ndarray


class Blocks(Protocol):
    """A store, cut into blocks of one sequence each."""

    num_blocks: int

    def read(self, block: int) -> Sequence:
        """The sequence of block number `block`."""
        ...


class StreamBlocks:
    """Pretraining: the store is one stream of tokens, cut every `length` of them, all of them learned from.

    The last block is padded.
    """

    def __init__(self, store: TokenStore, length: int, padding: int) -> None:
        self.store, self.length, self.padding = store, length, padding
        self.num_blocks = -(-max(store.num_tokens - 1, 0) // length)

    def read(self, block: int) -> Sequence:
        """Every token of the block, and as targets the tokens that follow them."""
        start = block * self.length
        stop = min(start + self.length + 1, self.store.num_tokens)
        segments = np.searchsorted(self.store.document_ends, np.arange(start, stop), side="right")
        everything = np.ones(stop - start, dtype=bool)
        return _sequence(self.store.tokens(start, stop), everything, segments, self.length, self.padding)


class PackedBlocks:
    """Conversations: whole documents, packed in order into sequences; one that is longer is cut at the end.

    Documents in which nothing is left to learn from after the cut are not packed; `num_skipped` counts them.
    """

    def __init__(self, store: TokenStore, length: int, padding: int) -> None:
        self.store, self.length, self.padding = store, length, padding
        self.documents = self._documents()
        self.num_skipped = store.num_documents - len(self.documents)
        self.firsts = _pack(np.minimum(self.documents[:, 1] - self.documents[:, 0], length), length)
        self.num_blocks = len(self.firsts) - 1

    def read(self, block: int) -> Sequence:
        """The block's documents one after the other, then padding."""
        spans = [
            (start, min(stop, start + self.length))
            for start, stop in self.documents[self.firsts[block] : self.firsts[block + 1]]
        ]
        tokens = np.concatenate([self.store.tokens(start, stop) for start, stop in spans])
        learned = np.concatenate([self.store.learned(start, stop) for start, stop in spans])
        segments = np.repeat(np.arange(len(spans)), [stop - start for start, stop in spans])
        return _sequence(tokens, learned, segments, self.length, self.padding)

    def _documents(self) -> np.ndarray:
        """Start and stop of the documents that teach something, (n, 2)."""
        ends = self.store.document_ends
        spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
        taught = np.concatenate([[0], np.cumsum(self.store.learned(0, self.store.num_tokens), dtype=np.int64)])
        cut = np.minimum(spans[:, 1], spans[:, 0] + self.length)
        teaches = taught[cut] > taught[np.minimum(spans[:, 0] + 1, cut)]
        return np.asarray(spans[teaches])


@dataclass(frozen=True)
class Batch:
    """Rows for one step: each array (batch, time) of int64; targets of -100 are not learned from."""

    tokens: np.ndarray
    targets: np.ndarray
    segments: np.ndarray
    addresses: list[Address]


class Loader:
    """The global batch of any step, and any rank's share of it."""

    def __init__(self, curriculum: Curriculum, blocks: dict[str, Blocks], batch_size: int) -> None:
        self.curriculum, self.blocks, self.batch_size = curriculum, blocks, batch_size

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Rows `rank`, `rank + world_size`, … of step number `step`, counted from 0."""
        first = step * self.batch_size
        addresses = [self.curriculum.address(first + row) for row in range(rank, self.batch_size, world_size)]
        rows = [self.blocks[address.source].read(address.block) for address in addresses]
        return Batch(
            np.stack([row.tokens for row in rows]),
            np.stack([row.targets for row in rows]),
            np.stack([row.segments for row in rows]),
            addresses,
        )


def _sequence(tokens: np.ndarray, learned: np.ndarray, segments: np.ndarray, length: int, padding: int) -> Sequence:
    """Pad to `length`; a token's target is the next one, where that is learned."""
    row = np.full(length, padding, dtype=np.int64)
    targets = np.full(length, IGNORED, dtype=np.int64)
    numbers = np.full(length, segments[-1] + 1, dtype=np.int64)
    size = min(len(tokens), length)
    row[:size], numbers[:size] = tokens[:size], segments[:size]
    follows = len(tokens) - 1
    targets[:follows] = np.where(learned[1:], tokens[1:].astype(np.int64), IGNORED)
    return Sequence(row, targets, numbers - numbers[0])


def _pack(sizes: np.ndarray, length: int) -> np.ndarray:
    """First document of each block when documents are laid end to end without being split; one more for the end."""
    firsts, room = [0], length
    for document, size in enumerate(sizes):
        if size > room:
            firsts.append(document)
            room = length
        room -= size
    return np.array([*firsts, len(sizes)] if len(sizes) else [0])
