"""How a token store is cut into sequences: concatenated, or packed with whole documents."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.data.prepare.token_store import TokenStore


class Sequences(Protocol):
    """A store, cut into blocks of one length, each of which can be read in parts of equal length."""

    num_blocks: int

    def read(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:
        """Tokens (n,) of uint16 and targets (n,) of int64; n is less than a part's length where the text ends."""
        ...

    def segments(self, block: int, part: int = 0, num_parts: int = 1) -> Array:
        """Which document each of those tokens is from, counted from 0: (n,) of int64."""
        ...


class ConcatSequences:
    """The store as one stream of tokens, cut every `length` of them: each but the very first is a target once.

    Only the last block can be short.
    """

    def __init__(self, store: TokenStore, length: int) -> None:
        self.store, self.length = store, length
        self.num_blocks = -(-max(store.num_tokens - 1, 0) // length)

    def read(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:
        """The tokens of a part, and as targets those that follow them."""
        start, stop = self._span(block, part, num_parts)
        tokens, learned = self.store.tokens(start, stop + 1), self.store.learned(start, stop + 1)
        return tokens[:-1], np.where(learned[1:], tokens[1:].astype(np.int64), IGNORE_INDEX)

    def segments(self, block: int, part: int = 0, num_parts: int = 1) -> Array:
        """Document numbers of the tokens of a part."""
        start, stop = self._span(block, part, num_parts)
        ends = self.store.document_ends
        first, last = np.searchsorted(ends, [start, stop], side="right")
        bounds = np.concatenate([[start], ends[first:last], [stop]])
        return np.asarray(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))

    def _span(self, block: int, part: int, num_parts: int) -> tuple[int, int]:
        length, last = self.length // num_parts, self.store.num_tokens - 1
        start = block * self.length + part * length
        return min(start, last), min(start + length, last)


class PackedSequences:
    """Whole documents, packed into sequences with as little padding as they allow.

    What is too long for a sequence is cut: of a conversation the beginning is kept, so that a question stays with its
    answer; of text all pieces are, so that every token is in one sequence. No document's first token is a target.

    Args:
        store: the documents.
        length: tokens per sequence.
        conversations: keep only the beginning of long documents, and leave out those in which nothing is then left to
            learn from; `num_skipped` counts them.
    """

    def __init__(self, store: TokenStore, length: int, conversations: bool) -> None:
        self.store, self.length = store, length
        pieces = _beginnings(store, length) if conversations else _all_pieces(store, length)
        self.num_skipped = store.num_documents - len(pieces) if conversations else 0
        blocks = pack(pieces[:, 1] - pieces[:, 0], length)
        self._by_block = pieces[np.argsort(blocks, kind="stable")]
        self._firsts = np.concatenate([[0], np.cumsum(np.bincount(blocks))])
        self.num_blocks = len(self._firsts) - 1

    def read(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:  # noqa: ARG002
        """The block's documents one after the other. They are packed for one length, so there are no parts."""
        tokens, targets = zip(*(self._read(*piece) for piece in self._pieces(block)), strict=True)
        return np.concatenate(tokens), np.concatenate(targets)

    def segments(self, block: int, part: int = 0, num_parts: int = 1) -> Array:  # noqa: ARG002
        """Numbers of the block's documents, by token."""
        lengths = [stop - start for start, stop, _ in self._pieces(block)]
        return np.repeat(np.arange(len(lengths)), lengths)

    def _pieces(self, block: int) -> list[list[int]]:
        pieces: list[list[int]] = self._by_block[self._firsts[block] : self._firsts[block + 1]].tolist()
        return pieces

    def _read(self, start: int, stop: int, known: int) -> tuple[Array, Array]:
        """Tokens, and the targets that are known of them: one fewer, but where the text goes on behind the cut."""
        tokens, learned = self.store.tokens(start, known), self.store.learned(start, known)
        targets = np.full(stop - start, IGNORE_INDEX, dtype=np.int64)
        targets[: known - start - 1] = np.where(learned[1:], tokens[1:].astype(np.int64), IGNORE_INDEX)
        return tokens[: stop - start], targets


def pack(sizes: Array, length: int) -> Array:
    """Number of the sequence into which each document of `sizes` (n,), none over `length`, is packed: (n,) int64.

    Best fit, the longest first: a document goes where the least room is left that suffices, as in "Fewer Truncations
    Improve Language Modeling" (Ding et al. 2024). Documents of one size are placed together, so the work hardly grows
    with their number.
    """
    blocks = np.empty(len(sizes), dtype=np.int64)
    order = np.argsort(length - sizes, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(length - sizes, minlength=length))])
    open_blocks: list[list[Array]] = [[] for _ in range(length + 1)]
    num_blocks = 0
    for size in range(length, 0, -1):
        alike = order[bounds[length - size] : bounds[length - size + 1]]
        room = size
        while len(alike):
            while room <= length and not open_blocks[room]:
                room += 1
            if room > length:
                new = -(-len(alike) // (length // size))
                open_blocks[length].append(np.arange(num_blocks, num_blocks + new))
                num_blocks, room = num_blocks + new, length
            into, fit = open_blocks[room].pop(), room // size
            used, rest = divmod(min(len(alike), len(into) * fit), fit)
            placed = used * fit + rest
            blocks[alike[:placed]] = np.repeat(into, fit)[:placed]
            for change, part in (
                (fit, into[:used]),
                (rest, into[used : used + (rest > 0)]),
                (0, into[used + (rest > 0) :]),
            ):
                if len(part):
                    open_blocks[room - change * size].append(part)
            alike = alike[placed:]
    return blocks


def _spans(store: TokenStore) -> Array:
    """Start and stop of every document: (documents, 2) int64."""
    ends = store.document_ends
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
    return np.stack([starts, ends], axis=1)


def _beginnings(store: TokenStore, length: int) -> Array:
    """The pieces of conversations: start, stop, and stop again, since nothing behind it is known. (n, 3) int64."""
    starts, stops = _spans(store).T
    stops = np.minimum(stops, starts + length)
    taught = np.concatenate([[0], np.cumsum(store.learned(0, store.num_tokens), dtype=np.int64)])
    teaches = taught[stops] > taught[np.minimum(starts + 1, stops)]
    return np.asarray(np.stack([starts, stops, stops], axis=1)[teaches])


def _all_pieces(store: TokenStore, length: int) -> Array:
    """The pieces of text: start, stop, and how far the document is known (one token on, unless it ends there)."""
    starts, stops = _spans(store).T
    counts = -(-(stops - starts) // length)
    index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin, end = np.repeat(starts, counts) + index * length, np.repeat(stops, counts)
    return np.stack([begin, np.minimum(begin + length, end), np.minimum(begin + length + 1, end)], axis=1)
