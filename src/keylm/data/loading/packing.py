"""How a token store is cut into sequences: by concatenation, or by best-fit packing of whole documents.

A *block* is a sequence of the longest length that training uses. Phases of training with shorter sequences read a block
in `num_parts` *parts* of equal length.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.data.prepare.long_conversations import document_spans, has_targets_within
from keylm.data.prepare.token_store import TokenStore


class Sequences(Protocol):
    """A token store as blocks of one length."""

    num_blocks: int

    def tokens_and_targets(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:
        """Tokens (n,) uint16 and targets (n,) int64 of one part of a block; n is less than its length at the end."""
        ...

    def document_ids(self, block: int, part: int = 0, num_parts: int = 1) -> Array:
        """Which document each of those tokens belongs to, counted from 0 within the part: (n,) int64."""
        ...


class ConcatSequences:
    """All documents concatenated, and cut every `length` tokens: each token but the very first is a target once.

    Only the last block may be short.
    """

    def __init__(self, store: TokenStore, length: int) -> None:
        self.store, self.length = store, length
        self.num_blocks = -(-max(store.num_tokens - 1, 0) // length)

    def tokens_and_targets(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:
        """The tokens of a part, and the tokens that follow them as targets."""
        start, stop = self._span(block, part, num_parts)
        # One token more than the part: it is the target of the last one, also across blocks and shards.
        tokens, loss_mask = self.store.tokens(start, stop + 1), self.store.loss_mask(start, stop + 1)
        return tokens[:-1], np.where(loss_mask[1:], tokens[1:].astype(np.int64), IGNORE_INDEX)

    def document_ids(self, block: int, part: int = 0, num_parts: int = 1) -> Array:
        """Document numbers of the tokens of a part."""
        start, stop = self._span(block, part, num_parts)
        # A document's end-of-text token belongs to it; the next token begins another document.
        ends = self.store.document_ends
        first, last = np.searchsorted(ends, [start, stop], side="right")
        bounds = np.concatenate([[start], ends[first:last], [stop]])
        return np.asarray(np.repeat(np.arange(len(bounds) - 1), np.diff(bounds)))

    def _span(self, block: int, part: int, num_parts: int) -> tuple[int, int]:
        # The last token of the store has no successor, so it is only ever a target.
        length, last = self.length // num_parts, self.store.num_tokens - 1
        start = block * self.length + part * length
        return min(start, last), min(start + length, last)


class PackedSequences:
    """Whole documents, packed into sequences with as little padding as possible.

    Documents longer than a sequence are cut. Of a conversation only the beginning is used, because an answer without
    its question teaches nothing. Of plain text all pieces are used. The first token of a document is never a target.

    Args:
        store: the documents.
        length: tokens per sequence.
        conversations: use only the beginning of long documents, and skip those without a token to train on;
            `num_skipped` counts them.
    """

    def __init__(self, store: TokenStore, length: int, conversations: bool) -> None:
        self.store, self.length = store, length
        pieces = _first_pieces(store, length) if conversations else _all_pieces(store, length)
        self.num_skipped = store.num_documents - len(pieces) if conversations else 0
        blocks = pack(pieces[:, 1] - pieces[:, 0], length)
        self._pieces_by_block = pieces[np.argsort(blocks, kind="stable")]
        self._first_pieces = np.concatenate([[0], np.cumsum(np.bincount(blocks))])
        self.num_blocks = len(self._first_pieces) - 1

    def tokens_and_targets(self, block: int, part: int = 0, num_parts: int = 1) -> tuple[Array, Array]:  # noqa: ARG002
        """The block's documents one after the other. They are packed for one length, so there are no parts."""
        all_tokens, all_targets = [], []
        for start, stop, known_stop in self._pieces(block):
            tokens, loss_mask = self.store.tokens(start, known_stop), self.store.loss_mask(start, known_stop)
            targets = np.full(stop - start, IGNORE_INDEX, dtype=np.int64)
            # The target of the piece's last token is known only if the document continues after the cut.
            targets[: known_stop - start - 1] = np.where(loss_mask[1:], tokens[1:].astype(np.int64), IGNORE_INDEX)
            all_tokens.append(tokens[: stop - start])
            all_targets.append(targets)
        return np.concatenate(all_tokens), np.concatenate(all_targets)

    def document_ids(self, block: int, part: int = 0, num_parts: int = 1) -> Array:  # noqa: ARG002
        """Numbers of the block's documents, by token."""
        lengths = [stop - start for start, stop, _ in self._pieces(block)]
        return np.repeat(np.arange(len(lengths)), lengths)

    def _pieces(self, block: int) -> list[list[int]]:
        pieces: list[list[int]] = self._pieces_by_block[
            self._first_pieces[block] : self._first_pieces[block + 1]
        ].tolist()
        return pieces


def pack(sizes: Array, length: int) -> Array:
    """Assign documents to blocks of `length` tokens by best fit, the longest first.

    Each document goes to the block with the least room that suffices, as in "Fewer Truncations Improve Language
    Modeling" (Ding et al. 2024). For example, `pack([2, 6, 3, 5, 4], length=10)` places 6, 5, 4, 3 and 2 in turn:

        document 6 needs a new block       block 0: 666666....
        document 5 needs a new block       block 1: 55555.....
        document 4 has room in both        block 0: 6666664444    (room 4 is tighter than room 5)
        document 3 has room in block 1     block 1: 55555333..
        document 2 has room in block 1     block 1: 5555533322

    and returns `[1, 0, 1, 1, 0]`. All documents of one size are placed at once, so the time depends on `length` and
    hardly on their number.

    Args:
        sizes: tokens per document, none over `length`: (n,).
        length: tokens per block.

    Returns:
        The block of each document: (n,) int64.
    """
    blocks = np.empty(len(sizes), dtype=np.int64)
    by_size = np.argsort(length - sizes, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(np.bincount(length - sizes, minlength=length))])
    # open_blocks[room] lists the blocks in which `room` tokens are free, as arrays of block numbers.
    open_blocks: list[list[Array]] = [[] for _ in range(length + 1)]
    num_blocks = 0
    for size in range(length, 0, -1):
        documents = by_size[bounds[length - size] : bounds[length - size + 1]]
        # Smaller rooms cannot take these documents, and placing them only makes rooms smaller: search upwards, once.
        room = size
        while len(documents):
            while room <= length and not open_blocks[room]:
                room += 1
            if room > length:
                # Nothing fits any more: open as many empty blocks as these documents can fill.
                new = -(-len(documents) // (length // size))
                open_blocks[length].append(np.arange(num_blocks, num_blocks + new))
                num_blocks, room = num_blocks + new, length
            candidates, per_block = open_blocks[room].pop(), room // size
            # Of the candidates, `num_full` take as many documents as fit, the next one takes `rest`, the others none.
            num_full, rest = divmod(min(len(documents), len(candidates) * per_block), per_block)
            num_placed = num_full * per_block + rest
            blocks[documents[:num_placed]] = np.repeat(candidates, per_block)[:num_placed]
            num_used = num_full + (rest > 0)
            for num_added, changed in (
                (per_block, candidates[:num_full]),
                (rest, candidates[num_full:num_used]),
                (0, candidates[num_used:]),
            ):
                if len(changed):
                    open_blocks[room - num_added * size].append(changed)
            documents = documents[num_placed:]
    return blocks


def _first_pieces(store: TokenStore, length: int) -> Array:
    """The pieces of conversations as rows of start, stop and known stop, which are the same: (n, 3) int64."""
    starts, stops = document_spans(store)
    stops = np.minimum(stops, starts + length)
    return np.asarray(np.stack([starts, stops, stops], axis=1)[has_targets_within(store, length)])


def _all_pieces(store: TokenStore, length: int) -> Array:
    """The pieces of plain text as rows of start, stop and known stop: (n, 3) int64.

    The known stop is one token after the piece, where the document continues.
    """
    starts, stops = document_spans(store)
    counts = -(-(stops - starts) // length)
    index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    begin, end = np.repeat(starts, counts) + index * length, np.repeat(stops, counts)
    return np.stack([begin, np.minimum(begin + length, end), np.minimum(begin + length + 1, end)], axis=1)
