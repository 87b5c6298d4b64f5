"""Blocks: every token of a stream is a target once; packed documents are whole, and little is left empty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.loading.loader import Loader
from keylm.data.loading.mixture import Mixture
from keylm.data.loading.packing import ConcatSequences, PackedSequences, Sequences, pack
from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.recipe.train import PhaseConfig

PADDING = 0

documents = st.lists(
    st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=2, max_size=40), min_size=1, max_size=12
)


def write(folder: Path, spoken: list[list[tuple[int, bool]]], conversations: bool = True) -> TokenStore:
    writer = StoreWriter(folder, shard_tokens=50, conversations=conversations)
    for number, document in enumerate(spoken):
        tokens, learned = (np.array(column) for column in zip(*document, strict=True))
        writer.add(number, tokens.astype(np.uint16), learned.astype(bool), len(document))
    writer.finish()
    return TokenStore(folder)


@given(documents, st.integers(1, 8), st.sampled_from([1, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_a_stream_predicts_every_token_once(tmp_path_factory, spoken, length, num_parts) -> None:
    store = write(tmp_path_factory.mktemp("store"), spoken, conversations=False)
    blocks = ConcatSequences(store, length * num_parts)
    stream = [token for document in spoken for token, _ in document]
    places = [(block, part, num_parts) for block in range(blocks.num_blocks) for part in range(num_parts)]
    rows = [blocks.read(*place) for place in places]
    assert all(len(tokens) == len(targets) <= length for tokens, targets in rows)
    assert all(len(tokens) == length for tokens, _ in rows[:-num_parts])
    assert np.concatenate([tokens for tokens, _ in rows]).tolist() == stream[:-1]
    assert np.concatenate([targets for _, targets in rows]).tolist() == stream[1:]
    numbers = np.repeat(np.arange(len(spoken)), [len(document) for document in spoken])
    for (block, part, _), (tokens, _) in zip(places, rows, strict=True):
        start = (block * num_parts + part) * length
        expected = numbers[start : start + len(tokens)]
        assert blocks.segments(block, part, num_parts).tolist() == (expected - expected[:1]).tolist()


def pieces_of(blocks: PackedSequences) -> list[tuple[list[int], list[int]]]:
    """Tokens and targets of all that is packed."""
    found = []
    for block in range(blocks.num_blocks):
        (tokens, targets), numbers = blocks.read(block), blocks.segments(block)
        assert len(tokens) == len(targets) == len(numbers) <= blocks.length
        for number in range(int(numbers.max()) + 1):
            here = numbers == number
            found.append((tokens[here].tolist(), targets[here].tolist()))
    return sorted(found)


@given(documents, st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_conversations_stay_whole_and_learn_what_is_marked(tmp_path_factory, spoken, length) -> None:
    store = write(tmp_path_factory.mktemp("store"), spoken)
    expected = []
    for document in spoken:
        tokens, learned = (list(column[:length]) for column in zip(*document, strict=True))
        targets = [
            token if is_learned else IGNORE_INDEX for token, is_learned in zip(tokens[1:], learned[1:], strict=True)
        ]
        if any(target != IGNORE_INDEX for target in targets):
            expected.append((tokens, [*targets, IGNORE_INDEX]))
    blocks = PackedSequences(store, length, conversations=True)
    assert pieces_of(blocks) == sorted(expected)
    assert blocks.num_skipped == len(spoken) - len(expected)


@given(documents, st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_packed_text_loses_no_token_and_predicts_all_but_first_ones(tmp_path_factory, spoken, length) -> None:
    store = write(tmp_path_factory.mktemp("store"), spoken, conversations=False)
    expected = []
    for document in spoken:
        tokens = [token for token, _ in document]
        targets = [*tokens[1:], IGNORE_INDEX]
        expected += [(tokens[i : i + length], targets[i : i + length]) for i in range(0, len(tokens), length)]
    assert pieces_of(PackedSequences(store, length, conversations=False)) == sorted(expected)


@given(st.lists(st.integers(1, 100), max_size=200), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_pack_is_best_fit_with_the_longest_first(sizes: list[int], room: int) -> None:
    """Against the algorithm's definition, one document at a time: the same filling of the same number of blocks."""
    length = max(sizes, default=1) + room
    left: list[int] = []
    for size in sorted(sizes, reverse=True):
        fits = [block for block, space in enumerate(left) if space >= size]
        if not fits:
            left.append(length)
        left[min(fits, key=left.__getitem__) if fits else -1] -= size
    blocks = pack(np.array(sizes, dtype=np.int64), length)
    filled = np.bincount(blocks, weights=sizes) if sizes else np.zeros(0)
    assert sorted(length - filled) == sorted(left)


def test_real_documents_leave_less_than_half_the_padding_of_packing_in_order(shared: Path) -> None:
    lengths = np.concatenate([lengths_of(shared / "text" / f"{name}.jsonl.zst") for name in REAL])
    pieces = np.concatenate([np.full((lengths // 2048).sum(), 2048), lengths[lengths % 2048 > 0] % 2048])
    np.random.default_rng(0).shuffle(pieces)
    in_order, room = 1, 2048
    for size in pieces.tolist():
        in_order, room = (in_order + 1, 2048 - size) if size > room else (in_order, room - size)
    best_fit = int(pack(pieces, 2048).max()) + 1
    needed = pieces.sum() / 2048
    assert best_fit - needed < (in_order - needed) / 2


REAL = ("formal_tech_docs", "social_stackexchange", "conv_star")


def lengths_of(path: Path) -> np.ndarray:
    """About as many tokens as the documents of a file have."""
    with zstandard.open(path, "rt", encoding="utf-8") as file:
        return np.array([len(line) // 4 for line in file])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenStore]:
    generator = np.random.default_rng(0)
    return {
        name: write(
            tmp_path_factory.mktemp(name),
            [[(int(token), True) for token in generator.integers(1, 500, size)] for size in sizes],
            conversations=False,
        )
        for name, sizes in {"a": generator.integers(2, 60, 30), "b": generator.integers(2, 60, 20)}.items()
    }


def loader(stores: dict[str, TokenStore], packing: str) -> Loader:
    length = 16
    blocks: dict[str, Sequences] = {
        name: ConcatSequences(store, length)
        if packing == "concat"
        else PackedSequences(store, length, conversations=False)
        for name, store in stores.items()
    }
    curriculum = Mixture(
        {name: part.num_blocks for name, part in blocks.items()},
        {"a": 2.0, "b": 1.0},
        categories={"a": "formal", "b": "casual"},
        max_epochs={},
        phases=[PhaseConfig(until=0.5, sequence_length=8), PhaseConfig(until=1.0)] if packing == "concat" else [],
        num_steps=40,
        batch_tokens=128,
        sequence_length=length,
        seed=0,
    )
    return Loader(curriculum, blocks, PADDING, intra_document_masking=True)


@pytest.mark.parametrize("packing", ["stream", "documents"])
@given(world_size=st.integers(1, 64), step=st.integers(0, 39))
@settings(max_examples=40, deadline=None)
def test_every_world_size_makes_the_same_global_batch(stores, packing: str, world_size: int, step: int) -> None:
    whole = loader(stores, packing).batch(step)
    assert whole.tokens.shape == whole.targets.shape == whole.document_ids.shape
    assert whole.tokens.size == 128
    for rank in range(min(world_size, len(whole.tokens))):
        part = loader(stores, packing).batch(step, rank, world_size)
        for column in ("tokens", "targets", "document_ids"):
            assert np.array_equal(getattr(part, column), getattr(whole, column)[rank::world_size])


def test_rows_are_padded_behind_their_text(stores) -> None:
    batches = [loader(stores, "documents").batch(step) for step in range(40)]
    padded = 0
    for batch in batches:
        for tokens, targets, segments in zip(batch.tokens, batch.targets, batch.document_ids, strict=True):
            is_padding = tokens == PADDING
            padded += int(is_padding.sum())
            assert (targets[is_padding] == IGNORE_INDEX).all()
            assert len(set(segments[is_padding])) <= 1
            assert not set(segments[is_padding]) & set(segments[~is_padding])
    assert padded
