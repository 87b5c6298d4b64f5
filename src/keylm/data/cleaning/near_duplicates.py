"""Near duplicates over all sources, by datatrove's MinHash: texts that share about three quarters of their 5-grams.

datatrove's four stages (Broder 1997; 14 buckets of 8 hashes, as for FineWeb) compute signatures of all documents, pairs
that are equal in a bucket, clusters of pairs, and a filter that keeps one document of each cluster. The filter gets
digests in place of texts, so that texts are read only once.
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
_LINES_TO_BUFFER = 1000

UnitTexts = Callable[[int], Iterable[tuple[int, str]]]
"""From the number of a unit to the digest and text of each of its documents, always in the same order."""
RunPipeline = Callable[[Sequence[PipelineStep], int, Path, str], None]
"""Runs a pipeline: its steps, the number of tasks, a folder for logs, a title. Finished tasks are not run again."""


def find_near_duplicates(unit_texts: UnitTexts, num_units: int, folder: Path, run_pipeline: RunPipeline) -> DigestSet:
    """The digests of the documents to drop: all but one of every cluster.

    They are written to `drop.npy` (sorted, uint64), and read from there if it exists. The same documents in the same
    units give the same digests.

    Args:
        unit_texts: gives the documents of a unit; has to be picklable.
        num_units: number of units.
        folder: where the stages write their files.
        run_pipeline: runs a stage.
    """
    result = folder / "drop.npy"
    if not result.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _run_minhash(unit_texts, num_units, folder, run_pipeline)
        # Opened here, because `np.save` would append `.npy` to the name.
        with (folder / "drop.npy.partial").open("wb") as file:
            np.save(file, _dropped_digests(folder, num_units))
        (folder / "drop.npy.partial").replace(result)
    return DigestSet(np.load(result))


def _run_minhash(unit_texts: UnitTexts, num_units: int, folder: Path, run_pipeline: RunPipeline) -> None:
    signatures, pairs, clusters = (str(folder / name) for name in ("signatures", "pairs", "clusters"))
    stages: dict[str, tuple[int, list[PipelineStep]]] = {
        "signatures": (
            num_units,
            [_ReadTexts(unit_texts, folder), MinhashDedupSignature(signatures, _CONFIG, language=ENGLISH)],
        ),
        "pairs": (
            _CONFIG.num_buckets,
            [MinhashDedupBuckets(signatures, pairs, config=_CONFIG, lines_to_buffer=_LINES_TO_BUFFER)],
        ),
        "clusters": (1, [MinhashDedupCluster(pairs, clusters, _CONFIG, lines_to_buffer=_LINES_TO_BUFFER)]),
        "filter": (num_units, [_ReadDigests(folder), MinhashDedupFilter(clusters), _SaveKeptDigests(folder)]),
    }
    # Each stage needs the files of all tasks of the one before it.
    for name, (num_tasks, steps) in stages.items():
        run_pipeline(steps, num_tasks, folder / "logs" / name, f"near duplicates: {name}")


def _dropped_digests(folder: Path, num_units: int) -> np.ndarray:
    """Digests of which no document was kept. Exact duplicates share a digest, and one of them may have been kept."""
    all_digests, kept = (
        np.concatenate([np.load(_digest_file(folder, name, unit)) for unit in range(num_units)])
        for name in ("all", "kept")
    )
    return np.setdiff1d(all_digests, kept)


class _ReadTexts(PipelineStep):  # type: ignore[misc]
    """Reads the documents of a unit, and saves their digests."""

    name = "KeyLM: texts"

    def __init__(self, unit_texts: UnitTexts, folder: Path) -> None:
        super().__init__()
        self.unit_texts, self.folder = unit_texts, folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        digests = []
        for digest, text in self.unit_texts(rank):
            digests.append(digest)
            yield Document(text=text, id=str(digest))
        _save_digests(_digest_file(self.folder, "all", rank), digests)


class _ReadDigests(PipelineStep):  # type: ignore[misc]
    """The documents of a unit without their texts, in the same order."""

    name = "KeyLM: digests"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        # The filter knows documents by their position alone, so it needs them again, but not what is in them.
        for digest in np.load(_digest_file(self.folder, "all", rank)).tolist():
            yield Document(text="", id=str(digest))


class _SaveKeptDigests(PipelineStep):  # type: ignore[misc]
    """Saves the digests of the documents that the filter kept."""

    name = "KeyLM: kept"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:  # noqa: ARG002
        digests = []
        for document in data:
            digests.append(int(document.id))
            yield document
        _save_digests(_digest_file(self.folder, "kept", rank), digests)


def _digest_file(folder: Path, name: str, unit: int) -> Path:
    return folder / name / f"{unit:05d}.npy"


def _save_digests(path: Path, digests: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(digests, dtype=np.uint64))
