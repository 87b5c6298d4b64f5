"""The token store against plain lists, and against hands that damage it."""

import hashlib
import os
import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.common.errors import KeyLMError, UserError
from keylm.data.prepare.token_store import StoreWriter, TokenStore

Documents = st.lists(st.lists(st.integers(0, 65_535), min_size=1, max_size=30), min_size=1, max_size=30)


def write(folder, documents, shard_tokens=50, conversations=True):
    """A store of these lists of ids; odd ids are trained on, and the bytes are three times the tokens."""
    writer = StoreWriter(folder, shard_tokens, conversations)
    for number, ids in enumerate(documents):
        if not writer.has(number):
            add(writer, number, ids)
    return writer.finish()


def add(writer, number, ids):
    tokens = np.array(ids)
    writer.add(number, tokens, tokens % 2 == 1, 3 * len(ids))


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@given(documents=Documents, shard_tokens=st.integers(1, 200), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_span_is_what_was_written(tmp_path_factory, documents, shard_tokens, data):
    folder = tmp_path_factory.mktemp("store")
    write(folder, documents, shard_tokens)
    store = TokenStore(folder)
    flat = [token for ids in documents for token in ids]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(flat))] * 2)))
    assert store.tokens(start, stop).tolist() == flat[start:stop]
    assert store.tokens(start, stop).dtype == np.uint16
    assert store.loss_mask(start, stop).tolist() == [token % 2 == 1 for token in flat[start:stop]]
    assert store.document_ends.tolist() == np.cumsum([len(ids) for ids in documents]).tolist()
    assert store.document_bytes.tolist() == [3 * len(ids) for ids in documents]
    assert (store.num_tokens, store.num_documents) == (len(flat), len(documents))
    store.verify()


def test_all_plain_text_is_trained_on(tmp_path):
    write(tmp_path, [[2, 4, 6]], conversations=False)
    assert TokenStore(tmp_path).loss_mask(1, 3).tolist() == [True, True]
    assert not list(tmp_path.glob("*.loss_mask.npy"))


def test_a_store_without_documents_can_be_opened(tmp_path):
    write(tmp_path, [])
    store = TokenStore(tmp_path)
    assert (store.num_tokens, store.num_documents) == (0, 0)
    assert store.tokens(0, 0).tolist() == store.loss_mask(0, 0).tolist() == store.document_ends.tolist() == []


@pytest.mark.parametrize("span", [(-1, 2), (3, 2), (0, 4)])
def test_a_span_outside_the_store_is_an_error(tmp_path, span):
    write(tmp_path, [[1, 2, 3]])
    with pytest.raises(IndexError):
        TokenStore(tmp_path).tokens(*span)


def test_a_span_within_a_shard_is_a_view_of_the_file(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    assert not TokenStore(tmp_path).tokens(0, 2).flags.owndata


def test_a_stopped_writer_goes_on_to_the_same_bytes(tmp_path):
    documents = [[number] * (number % 7 + 1) for number in range(100)]
    write(tmp_path / "whole", documents)
    for stop in (0, 1, 30, 31, 99):
        writer = StoreWriter(tmp_path / str(stop), 50, conversations=True)
        for number in range(stop):
            add(writer, number, documents[number])
        with pytest.raises(KeyLMError, match="not a finished token store"):
            TokenStore(tmp_path / str(stop))
        write(tmp_path / str(stop), documents)
        assert contents(tmp_path / str(stop)) == contents(tmp_path / "whole")


@pytest.mark.parametrize("others", [range(1, 100), range(3), [1, 0, *range(2, 100)]])
def test_other_documents_after_a_stop_are_refused(tmp_path, others):
    writer = StoreWriter(tmp_path, 50, conversations=True)
    for number in range(60):
        add(writer, number, [number] * 9)
    with pytest.raises(UserError, match=r"are not those of before the stop: run `keylm prepare` with `--remake"):
        _offer(StoreWriter(tmp_path, 50, conversations=True), others)


def _offer(writer, numbers):
    for number in numbers:
        writer.has(number)
    writer.finish()


def test_the_fingerprint_stands_for_the_tokens(tmp_path):
    first = write(tmp_path / "1", [[1, 2], [3]])["fingerprint"]
    assert write(tmp_path / "2", [[1, 2], [3]])["fingerprint"] == first
    assert write(tmp_path / "3", [[1, 2], [4]])["fingerprint"] != first
    assert write(tmp_path / "4", [[1], [2, 3]])["fingerprint"] != first


def test_the_manifest_holds_the_hashes_of_the_files(tmp_path):
    manifest = write(tmp_path, [[1, 2], [3]])
    for name, facts in manifest["shards"][0]["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == facts["sha256"]


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    (tmp_path / "shard-00000.ends.npy").unlink()
    sentence = r"shard-00000\.ends\.npy is damaged \(it is missing\): run `keylm prepare` with `--remake prepare`"
    with pytest.raises(KeyLMError, match=sentence):
        TokenStore(tmp_path)


def test_a_file_that_was_cut_is_named(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    path = tmp_path / "shard-00000.tokens.npy"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(KeyLMError, match=r"shard-00000\.tokens\.npy is damaged \(it has 132 bytes, not 134\)"):
        TokenStore(tmp_path)


@pytest.mark.parametrize("position", [0, -1], ids=["header", "data"])
def test_a_changed_byte_is_found_before_it_is_used(tmp_path, position):
    write(tmp_path, [[1, 2, 3]])
    path = tmp_path / "shard-00000.tokens.npy"
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(KeyLMError, match=r"shard-00000\.tokens\.npy is damaged"):
        TokenStore(tmp_path)


def test_a_byte_that_changes_while_the_store_is_open_is_found_when_it_is_opened_again(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    TokenStore(tmp_path)
    path = tmp_path / "shard-00000.tokens.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, (1, 1))
    with pytest.raises(KeyLMError, match=r"its hash is not that of what was written"):
        TokenStore(tmp_path)


def test_a_manifest_that_is_not_json_is_named(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(KeyLMError, match=r"manifest\.json is damaged \(it is not JSON\): run `keylm prepare`"):
        TokenStore(tmp_path)


def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path):
    documents = [[number] * 40 for number in range(10)]
    write(tmp_path / "whole", documents)
    writer = StoreWriter(tmp_path / "full", 50, conversations=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    add(writer, 0, documents[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(KeyLMError, match=r"cannot write .*shard-00000\.tokens\.npy: File too large; fix that"):
            add(writer, 1, documents[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    write(tmp_path / "full", documents)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")
