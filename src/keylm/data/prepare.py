"""The `prepare` stage: every source is read, cleaned, freed of duplicates, split, encoded and stored.

One process reads and cleans while the tokenizer's threads keep all cores busy with encoding, which is nine tenths of
the work. Memory holds a batch of documents, an open shard, and a digest (about 90 bytes in Python) per document.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from keylm import chat, recipe
from keylm.data import sources
from keylm.data.clean import clean
from keylm.data.documents import Document, is_held_out
from keylm.data.reading import Reading
from keylm.data.store import Array, StoreWriter
from keylm.errors import UserError
from keylm.recipe import Source
from keylm.run import Run, read_json, write_json
from keylm.screen import progress
from keylm.tokenizer import Tokenizer

SIDES = ("train", "validation")
DUPLICATE = "duplicate"
_BATCH_BYTES = 1_000_000


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that is learned from or validated on."""

    document: Document
    digest: int
    num_bytes: int


def build(run: Run) -> dict[str, Any]:
    """Write `{pretrain,sft}/{source}/{train,validation}/` in the stage's folder; returns counts and fingerprints.

    Can be stopped at any time: the same call goes on behind the last whole shard, to the same bytes.

    Raises:
        UserError: a source is unusable, gives nothing, or changed since the stage was stopped.
        KeyLMError: a shard could not be written.
    """
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    facts = {
        part: {source.name: _prepare(run, part, source, tokenizer) for source in part_sources}
        for part, part_sources in (("pretrain", run.recipe.data.sources), ("sft", run.recipe.sft.sources))
    }
    stores = [facts[part][name][side]["fingerprint"] for part in facts for name in facts[part] for side in SIDES]
    return {**facts, "fingerprint": recipe.fingerprint(stores)}


def _prepare(run: Run, part: str, source: Source, tokenizer: Tokenizer) -> dict[str, Any]:
    folder = run.stage("prepare") / part / source.name
    if (folder / "manifest.json").exists():
        return read_json(folder / "manifest.json")
    data = run.recipe.data
    writers = {side: StoreWriter(folder / side, data.shard_tokens, conversations=part == "sft") for side in SIDES}
    reading, dropped = Reading(), Counter[str]()
    # Another seed for SFT, so that generated conversations are not those of pretraining over again.
    documents = sources.read(source, run.recipe.seed + (part == "sft"), reading)
    if part == "sft":
        documents = _only_conversations(documents, source)
    with progress(f"prepare {part}/{source.name}", None, "MB") as bar:
        megabytes = 0.0
        for batch in _batches(_admit(documents, data.min_document_bytes, dropped)):
            for side, items in _split(batch, data.validation_fraction).items():
                _write(items, writers[side], tokenizer)
            advance = sum(item.num_bytes for item in batch) / 1e6
            megabytes += advance
            bar.advance(advance)
            if reading.share:
                bar.expect(megabytes / reading.share)
    stores = {side: _summary(writer.finish()) for side, writer in writers.items()}
    if not stores["train"]["documents"]:
        raise UserError(f"the source `{source.name}` gives nothing to train on ({_reasons(dropped)})")
    settings = source.model_dump(mode="json", exclude={"weight"})
    facts = {"source": settings, **reading.facts, "dropped": dict(sorted(dropped.items())), **stores}
    write_json(folder / "manifest.json", facts)
    return facts


def _only_conversations(documents: Iterable[Document], source: Source) -> Iterator[Document]:
    for document in documents:
        if document.messages is None:
            raise UserError(
                f"the source `{source.name}` of sft.sources holds plain text, in which there is no assistant to learn "
                f"from: give it conversations, or move it to data.sources"
            )
        yield document


def _admit(documents: Iterable[Document], min_document_bytes: int, dropped: Counter[str]) -> Iterator[Admitted]:
    """The cleaned documents, each for the first time; `dropped` counts the others by reason."""
    seen: set[int] = set()
    for document in documents:
        cleaned = clean(document, min_document_bytes)
        if isinstance(cleaned, str):
            dropped[cleaned] += 1
            continue
        digest = cleaned.digest
        if digest in seen:
            dropped[DUPLICATE] += 1
            continue
        seen.add(digest)
        yield Admitted(cleaned, digest, cleaned.num_bytes)


def _batches(items: Iterable[Admitted]) -> Iterator[list[Admitted]]:
    """The items in lists of about `_BATCH_BYTES`."""
    batch: list[Admitted] = []
    num_bytes = 0
    for item in items:
        batch.append(item)
        num_bytes += item.num_bytes
        if num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _split(batch: list[Admitted], validation_fraction: float) -> dict[str, list[Admitted]]:
    sides: dict[str, list[Admitted]] = {side: [] for side in SIDES}
    for item in batch:
        sides["validation" if is_held_out(item.digest, validation_fraction) else "train"].append(item)
    return sides


def _write(items: list[Admitted], writer: StoreWriter, tokenizer: Tokenizer) -> None:
    """Encode and add those items that the writer does not have yet."""
    missing = [item for item in items if not writer.has(item.digest)]
    for item, (tokens, learned) in zip(missing, _encode([item.document for item in missing], tokenizer), strict=True):
        writer.add(item.digest, tokens, learned, item.num_bytes)


def _encode(documents: list[Document], tokenizer: Tokenizer) -> Iterator[tuple[Array, Array]]:
    """Token ids, closed by the end-of-text token, and which of them are learned from, for each document."""
    texts = iter(tokenizer.encode_batch([document.text for document in documents if document.text is not None]))
    talks = iter(chat.encode_batch(tokenizer, [talk.messages for talk in documents if talk.messages is not None]))
    for document in documents:
        if document.messages is None:
            tokens = np.array([*next(texts), tokenizer.end_of_text], dtype=np.uint16)
            yield tokens, np.ones(len(tokens), dtype=np.bool_)
        else:
            ids, learned = next(talks)
            yield np.array([*ids, tokenizer.end_of_text], dtype=np.uint16), np.array([*learned, False])


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("documents", "tokens", "bytes", "fingerprint")}


def _reasons(dropped: Counter[str]) -> str:
    if not dropped:
        return "it has no documents"
    return "left out: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items()))
