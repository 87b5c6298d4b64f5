"""The token store: a source's documents as shards of token ids on disk, read through memory maps.

A store is a folder. Each shard holds whole documents in four arrays (`.npy`, without pickle):

    shard-00000.tokens.npy     uint16   token ids, every document closed by the end-of-text token
    shard-00000.ends.npy       int64    where each document ends, in tokens from the start of the shard
    shard-00000.bytes.npy      int64    UTF-8 bytes of each document's text
    shard-00000.digests.npy    uint64   a 64-bit hash of each document (`Document.digest`)
    shard-00000.loss_mask.npy  bool     which tokens are trained on; only in stores of conversations

`manifest.json` lists the shards with sizes, hashes and counts. It is rewritten after every shard, and is therefore also
the record from which a stopped writer continues.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from keylm.common.arrays import Array
from keylm.common.errors import KeyLMError, UserError
from keylm.common.files import cached_sha256, read_json, sha256, write_json
from keylm.recipe import fingerprint


class TokenStore:
    """A finished store, open for random access.

    Args:
        folder: where the shards are.

    Raises:
        KeyLMError: the store is unfinished, or a file is missing, has the wrong size or is not what was written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        manifest = read_manifest(folder)
        if not manifest.get("complete"):
            raise KeyLMError(
                f"{folder} is not a finished token store: run the `prepare` stage, with `--remake prepare` if done"
            )
        self.shards: list[dict[str, Any]] = manifest["shards"]
        self.fingerprint: str = manifest["fingerprint"]
        self.num_tokens: int = manifest["tokens"]
        self.num_documents: int = manifest["documents"]
        for name, file in self._files():
            if not (folder / name).exists():
                raise _damaged(folder / name, "it is missing")
            size = (folder / name).stat().st_size
            if size != file["size"]:
                # A cut file would be noticed only when training reaches it.
                raise _damaged(folder / name, f"it has {size:,} bytes, not {file['size']:,}")
        self.verify()
        # Where each shard starts in the store, and where the last one ends.
        self._starts = [0, *accumulate(shard["tokens"] for shard in self.shards)]
        self._tokens = self._open("tokens")
        self._loss_mask = self._open("loss_mask") if manifest["conversations"] else None

    @cached_property
    def document_ends(self) -> Array:
        """Where each document ends, in tokens from the start of the store: (num_documents,) int64."""
        ends = [start + shard_ends for start, shard_ends in zip(self._starts, self._open("ends"), strict=False)]
        return np.concatenate([np.empty(0, np.int64), *ends])

    @cached_property
    def document_bytes(self) -> Array:
        """UTF-8 bytes of each document's text: (num_documents,) int64."""
        return np.concatenate([np.empty(0, np.int64), *self._open("bytes")])

    @cached_property
    def document_digests(self) -> Array:
        """A 64-bit hash of each document: (num_documents,) uint64."""
        return np.concatenate([np.empty(0, np.uint64), *self._open("digests")])

    def tokens(self, start: int, stop: int) -> Array:
        """Token ids from `start` to `stop`: (stop - start,) uint16; a view of the file if they are in one shard."""
        return self._slice(self._tokens, start, stop, np.uint16)

    def loss_mask(self, start: int, stop: int) -> Array:
        """Which of the tokens are trained on: (stop - start,) bool; all of them in a store of plain text."""
        if self._loss_mask is None:
            return np.ones(stop - start, dtype=np.bool_)
        return self._slice(self._loss_mask, start, stop, np.bool_)

    def verify(self) -> None:
        """Read every file, unless this process has, and compare its hash: a flipped bit would train another model.

        Raises:
            KeyLMError: a file differs from what was written.
        """
        for name, file in self._files():
            if cached_sha256(self.folder / name) != file["sha256"]:
                raise _damaged(self.folder / name, "its hash is not that of what was written")

    def _slice(self, shards: list[Array], start: int, stop: int, dtype: type) -> Array:
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of a store of {self.num_tokens}")
        # Shards are an accident of storage: a sequence may begin in one and end in the next.
        pieces = []
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            first = self._starts[index]
            pieces.append(shards[index][start - first : stop - first])
            index += 1
            start = self._starts[index]
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, dtype), *pieces])

    def _files(self) -> list[tuple[str, dict[str, Any]]]:
        return [item for shard in self.shards for item in shard["files"].items()]

    def _open(self, array: str) -> list[Array]:
        return [_memory_map(self.folder / _file_name(index, array)) for index in range(len(self.shards))]


class StoreWriter:
    """Writes a store shard by shard, and continues after the last complete shard of a writer that was stopped.

    After a stop the same documents have to be offered again, in the same order; `has` tells which are on disk already.

    Args:
        folder: where the shards go.
        shard_tokens: a shard is closed once it has at least this many tokens.
        conversations: store the loss mask.
    """

    def __init__(self, folder: Path, shard_tokens: int, conversations: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shard_tokens, self.conversations = folder, shard_tokens, conversations
        self.shards: list[dict[str, Any]] = read_manifest(folder).get("shards", [])
        # In order, and one at a time: the digests of a large store need not be in memory.
        self._stored = self._stored_digests(len(self.shards))
        self._pending: list[tuple[Array, Array, int, int]] = []
        self._num_pending_tokens = 0

    def has(self, digest: int) -> bool:
        """Whether the next document, which has this digest, is on disk already.

        Raises:
            UserError: the documents differ from those written before the stop.
        """
        stored = next(self._stored, None)
        if stored is not None and stored != digest:
            raise self._changed()
        return stored is not None

    def add(self, digest: int, tokens: Array, loss_mask: Array, num_bytes: int) -> None:
        """Add a document.

        Args:
            digest: `Document.digest`.
            tokens: token ids, which must fit into uint16: (n,).
            loss_mask: which of them are trained on: (n,) bool.
            num_bytes: UTF-8 bytes of its text.

        Raises:
            KeyLMError: the shard could not be written.
        """
        # Half of int32: a vocabulary has at most 65,536 tokens.
        self._pending.append((tokens.astype(np.uint16), loss_mask, num_bytes, digest))
        self._num_pending_tokens += len(tokens)
        if self._num_pending_tokens >= self.shard_tokens:
            self._close_shard()

    def finish(self) -> dict[str, Any]:
        """Write the last shard and mark the store as complete; returns its manifest.

        Raises:
            UserError: fewer documents were offered than had been written before the stop.
        """
        if next(self._stored, None) is not None:
            raise self._changed()
        if self._pending:
            self._close_shard()
        return self._write_manifest(complete=True)

    def _close_shard(self) -> None:
        tokens, loss_masks, num_bytes, digests = zip(*self._pending, strict=True)
        arrays = {
            "tokens": np.concatenate(tokens),
            "ends": np.cumsum([len(ids) for ids in tokens], dtype=np.int64),
            "bytes": np.array(num_bytes, dtype=np.int64),
            "digests": np.array(digests, dtype=np.uint64),
        }
        if self.conversations:
            arrays["loss_mask"] = np.concatenate(loss_masks)
        files = {}
        for name, array in arrays.items():
            path = self.folder / _file_name(len(self.shards), name)
            _save(path, array)
            files[path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
        counts = {"tokens": self._num_pending_tokens, "documents": len(tokens), "bytes": sum(num_bytes)}
        # Only now does the shard exist: a writer that is killed before this writes its files anew.
        self.shards.append({**counts, "files": files})
        self._write_manifest(complete=False)
        self._pending, self._num_pending_tokens = [], 0

    def _write_manifest(self, complete: bool) -> dict[str, Any]:
        hashes = [file["sha256"] for shard in self.shards for file in shard["files"].values()]
        manifest = {
            "complete": complete,
            "conversations": self.conversations,
            **{count: sum(shard[count] for shard in self.shards) for count in ("tokens", "documents", "bytes")},
            "fingerprint": fingerprint(hashes),
            "shards": self.shards,
        }
        write_json(self.folder / "manifest.json", manifest)
        return manifest

    def _changed(self) -> UserError:
        return UserError(
            f"the documents for {self.folder} are not those of before the stop: "
            f"run `keylm prepare` with `--remake prepare`, which prepares {self.folder.parent.name} again"
        )

    def _stored_digests(self, num_shards: int) -> Iterator[int]:
        """Digests of the documents on disk, shard by shard."""
        for index in range(num_shards):
            yield from _memory_map(self.folder / _file_name(index, "digests")).tolist()


def _file_name(shard: int, array: str) -> str:
    return f"shard-{shard:05d}.{array}.npy"


def _save(path: Path, array: Array) -> None:
    try:
        with path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
            file.flush()
            # Before the manifest lists it: after a power cut, opening a store compares sizes only.
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyLMError(
            f"cannot write {path}: {error.strerror or error}; fix that and run again, complete shards are kept"
        ) from error


def _memory_map(path: Path) -> Array:
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, reason: str) -> KeyLMError:
    return KeyLMError(
        f"{path} is damaged ({reason}): run `keylm prepare` with `--remake prepare`, which keeps the sources that are "
        f"whole"
    )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The `manifest.json` of a store, or of a source with its stores; empty if there is none yet.

    Raises:
        KeyLMError: it is damaged.
    """
    path = folder / "manifest.json"
    try:
        return read_json(path) if path.exists() else {}
    except UserError as error:
        raise _damaged(path, "it is not JSON") from error
