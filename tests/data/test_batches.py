"""Blocks: every token of a stream is a target once; packed conversations are whole and learn from the assistant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.data.batches import IGNORED, PackedBlocks, StreamBlocks
from keylm.data.store import StoreWriter, TokenStore

PADDING = 0

documents = st.lists(
    st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=2, max_size=40), min_size=1, max_size=12
)


def write(folder: Path, spoken: list[list[tuple[int, bool]]]) -> TokenStore:
    writer = StoreWriter(folder, shard_tokens=50, conversations=True)
    for number, document in enumerate(spoken):
        tokens, learned = (np.array(column) for column in zip(*document, strict=True))
        writer.add(number, tokens.astype(np.uint16), learned.astype(bool), len(document))
    writer.finish()
    return TokenStore(folder)


@given(documents, st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_a_stream_predicts_every_token_once(tmp_path_factory, spoken, length) -> None:
    store = write(tmp_path_factory.mktemp("store"), spoken)
    blocks = StreamBlocks(store, length, PADDING)
    stream = [token for document in spoken for token, _ in document]
    rows = [blocks.read(block) for block in range(blocks.num_blocks)]
    assert all(len(row.tokens) == len(row.targets) == length for row in rows)
    targets = np.concatenate([row.targets for row in rows])
    assert targets[targets != IGNORED].tolist() == stream[1:]
    assert np.concatenate([row.tokens for row in rows])[: len(stream) - 1].tolist() == stream[:-1]


@given(documents, st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_packing_keeps_documents_whole_and_learns_what_is_marked(tmp_path_factory, spoken, length) -> None:
    store = write(tmp_path_factory.mktemp("store"), spoken)
    blocks = PackedBlocks(store, length, PADDING)
    packed = []
    for block in range(blocks.num_blocks):
        row = blocks.read(block)
        for number in range(int(row.segments.max()) + 1):
            here = row.segments == number
            packed.append((row.tokens[here].tolist(), row.targets[here].tolist()))
    expected = []
    for document in spoken:
        tokens, learned = (list(column[:length]) for column in zip(*document, strict=True))
        targets = [token if is_learned else IGNORED for token, is_learned in zip(tokens[1:], learned[1:], strict=True)]
        if any(target != IGNORED for target in targets):
            expected.append((tokens, targets))
    found = [(tokens, targets[:-1]) for tokens, targets in packed if any(target != IGNORED for target in targets)]
    assert found == expected
    assert blocks.num_skipped == len(spoken) - len(expected)
