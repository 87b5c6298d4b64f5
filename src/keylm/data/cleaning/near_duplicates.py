"""Near duplicates over all sources, by datatrove's MinHash: texts that share about three quarters of their 5-grams.

datatrove's four stages (Broder 1997; 14 buckets of 8 hashes, as for FineWeb) are signatures of every document, pairs
that are equal in a bucket, clusters of pairs, and a filter that leaves one document of each cluster. The filter is
given digests in the place of texts, so that texts are read once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig

from keylm.data.cleaning.datatrove_adapters import ENGLISH, HASHES
from keylm.data.cleaning.deduplication import DigestSet

_CONFIG = MinhashConfig(hash_config=HASHES)
_ROWS_TO_BUFFER = 1000


Read = Callable[[int], Iterable[tuple[int, str]]]
"""Digest and text of every document of the part with this number, always in the same order."""
Execute = Callable[[Sequence[PipelineStep], int, Path, str], None]
"""Runs a pipeline in so many tasks, with a folder for its logs and a title; what is done is not done again."""


def find_near_duplicates(read: Read, num_parts: int, folder: Path, execute: Execute) -> DigestSet:
    """The digests of the documents to drop; written to `drop.npy`, sorted uint64, and read from there if it exists.

    One document of every cluster is not among them. The same documents in the same parts give the same digests.

    Args:
        read: gives the documents of a part; must be fit to be sent to another process.
        num_parts: how many parts there are.
        folder: where the stages leave their files.
        execute: runs the stages.
    """
    result = folder / "drop.npy"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run(read, num_parts, folder, execute)
        with (folder / "drop.npy.partial").open("wb") as file:
            np.save(file, _dropped(folder, num_parts))
        (folder / "drop.npy.partial").replace(result)
    return DigestSet(np.load(result))


def _run(read: Read, num_parts: int, folder: Path, execute: Execute) -> None:
    signatures, pairs, clusters = (str(folder / name) for name in ("signatures", "pairs", "clusters"))
    stages: list[tuple[str, int, list[PipelineStep]]] = [
        ("signatures", num_parts, [_Texts(read, folder), MinhashDedupSignature(signatures, _CONFIG, language=ENGLISH)]),
        (
            "pairs",
            _CONFIG.num_buckets,
            [MinhashDedupBuckets(signatures, pairs, config=_CONFIG, lines_to_buffer=_ROWS_TO_BUFFER)],
        ),
        ("clusters", 1, [MinhashDedupCluster(pairs, clusters, _CONFIG, lines_to_buffer=_ROWS_TO_BUFFER)]),
        ("filter", num_parts, [_Digests(folder), MinhashDedupFilter(clusters), _Kept(folder)]),
    ]
    for name, num_tasks, pipeline in stages:
        execute(pipeline, num_tasks, folder / "logs" / name, f"near duplicates: {name}")


def _dropped(folder: Path, num_parts: int) -> np.ndarray:
    """Digests of which no document was kept: a document may be there several times, word for word."""
    everything, kept = (
        np.concatenate([np.load(_path(folder, name, part)) for part in range(num_parts)]) for name in ("all", "kept")
    )
    return np.setdiff1d(everything, kept)


class _Texts(PipelineStep):  # type: ignore[misc]
    """Reads a part, and keeps its digests."""

    name = "KeyLM: texts"

    def __init__(self, read: Read, folder: Path) -> None:
        super().__init__()
        self.read, self.folder = read, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        digests = []
        for digest, text in self.read(rank):
            digests.append(digest)
            yield Document(text=text, id=str(digest))
        _save(_path(self.folder, "all", rank), digests)


class _Digests(PipelineStep):  # type: ignore[misc]
    """The documents of a part, without their texts."""

    name = "KeyLM: digests"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        for digest in np.load(_path(self.folder, "all", rank)).tolist():
            yield Document(text="", id=str(digest))


class _Kept(PipelineStep):  # type: ignore[misc]
    """Keeps the digests of the documents that the filter left."""

    name = "KeyLM: kept"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        digests = []
        for document in data:
            digests.append(int(document.id))
            yield document
        _save(_path(self.folder, "kept", rank), digests)


def _path(folder: Path, name: str, part: int) -> Path:
    return folder / name / f"{part:05d}.npy"


def _save(path: Path, digests: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(digests, dtype=np.uint64))
