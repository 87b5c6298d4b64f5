"""The `prepare` stage: every source is read, cleaned, deduplicated, split, tokenized and stored.

Tokenization is nine tenths of the work: the tokenizer's threads keep all cores busy while this process reads and cleans
the next batch. Memory holds a few batches of documents, one open shard, and about ten bytes per document to recognize
duplicates. With `prepare.tasks` the sources are divided between processes or machines, and merged here.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keylm.common.console import console
from keylm.common.console import progress as progress_bar
from keylm.common.errors import MissingSourceError, UserError
from keylm.common.files import write_json
from keylm.common.held_out import HeldOut
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.cleaning.deduplication import DigestSet, ExactDeduplicator
from keylm.data.cleaning.drop_log import DropLog
from keylm.data.prepare.freshness import begin_sources, describe_files
from keylm.data.prepare.long_conversations import count_long_conversations
from keylm.data.prepare.outputs import source_folder, work_folder
from keylm.data.prepare.source_table import describe_counts, print_sources
from keylm.data.prepare.token_store import StoreWriter, TokenStore, read_manifest
from keylm.data.prepare.tokenization import CleanedDocument, TokenizedDocument, tokenize_documents
from keylm.data.prepare.workers import (
    cleaned_documents,
    find_stage_near_duplicates,
    source_units,
    tokenize_units,
    tokenized_documents,
)
from keylm.data.sources.files import validation_digests
from keylm.data.sources.progress import ReadProgress
from keylm.recipe import MIXTURE_STAGES, fingerprint
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

SPLITS = ("train", "validation")
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"

DocumentT = TypeVar("DocumentT", CleanedDocument, TokenizedDocument)


def run_prepare(run: Run) -> dict[str, Any]:
    """Write `{pretrain,sft}/{source}/{train,validation}/` in the stage's folder; returns counts and fingerprints.

    Can be stopped at any time: the same call continues after the last complete shard, to the same bytes.

    Raises:
        UserError: a source is unusable, yields nothing to train on, or changed since the stage was stopped.
        KeyLMError: a shard could not be written, or a task failed.
    """
    begin_sources(run)
    if run.recipe.prepare.tasks > 1:
        # Below, `tokenized_documents` then reads what the tasks stored.
        tokenize_units(run)
    # Millions of short lists are allocated, and none is part of a cycle: collecting garbage would only cost time.
    gc.disable()
    try:
        manifests = {stage: _prepare_stage(run, stage) for stage in MIXTURE_STAGES}
    finally:
        gc.enable()
    shutil.rmtree(work_folder(run), ignore_errors=True)
    print_sources(run.recipe, manifests)
    prepared = [source for stage in manifests.values() for source in stage.values() if "missing" not in source]
    fingerprints = [source[split]["fingerprint"] for source in prepared for split in SPLITS]
    return {**manifests, "fingerprint": fingerprint(fingerprints)}


def _prepare_stage(run: Run, stage: str) -> dict[str, Any]:
    """Prepare the sources of a stage one after the other; returns their manifests by name."""
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    is_fuzzy = run.recipe.data.clean.near_duplicates
    duplicates = _Duplicates(find_stage_near_duplicates(run, stage) if is_fuzzy else frozenset())
    return {
        source.name: _SourcePreparation(run, stage, source, tokenizer, duplicates).run_or_load()
        for source in run.recipe.sources_of(stage)
    }


@dataclass
class _Duplicates:
    """Recognizes documents that occurred earlier in the stage, in any of its sources."""

    near_duplicates: DigestSet | frozenset[int]
    exact: ExactDeduplicator = field(default_factory=ExactDeduplicator)

    def drop_reason(self, digest: int) -> str | None:
        """Why a document with this digest is dropped, if it is; records it as seen."""
        if not self.exact.add(digest):
            return DUPLICATE
        return NEAR_DUPLICATE if digest in self.near_duplicates else None


class _SourcePreparation:
    """One source of a stage: its documents on their way into its two token stores."""

    def __init__(
        self, run: Run, stage: str, source: SourceConfig, tokenizer: Tokenizer, duplicates: _Duplicates
    ) -> None:
        self.run, self.stage, self.source = run, stage, source
        self.tokenizer, self.duplicates = tokenizer, duplicates
        self.folder = source_folder(run, stage, source.name)
        self.progress, self.dropped = ReadProgress(), DropLog(run.recipe.data.clean.samples)

    def run_or_load(self) -> dict[str, Any]:
        """Prepare the source unless an earlier call has; returns its manifest."""
        path = self.folder / "manifest.json"
        if path.exists():
            # Later sources are still compared with its documents.
            for store in self.folder.glob("*/manifest.json"):
                for digest in TokenStore(store.parent).document_digests.tolist():
                    self.duplicates.exact.add(digest)
            return self._load_manifest()
        manifest: dict[str, Any] = {"source": self.source.model_dump(mode="json", exclude={"weight"})}
        self.writers = {
            split: StoreWriter(self.folder / split, self.run.recipe.data.shard_tokens, self.stage == "sft")
            for split in SPLITS
        }
        try:
            digests = validation_digests(self.source, Cleaner(self.run, self.source), self.stage == "sft")
            self.held_out = HeldOut(self.run.recipe.data.validation_fraction, digests)
            # Before they are read: what changes meanwhile is then noticed.
            files = describe_files(self.source)
            manifest |= {"files": files, **self._write_stores()}
        except MissingSourceError as error:
            # What an earlier call stored must not be lost because the source is unavailable now.
            if self.source.on_missing == "stop" or any(writer.shards for writer in self.writers.values()):
                raise
            console.print(f"  [yellow]{self.source.name} is left out[/]: {error}")
            manifest |= {"missing": str(error)}
        write_json(path, manifest)
        return self._load_manifest()

    def _load_manifest(self) -> dict[str, Any]:
        """The manifest without the list of files, which may be long."""
        manifest = read_manifest(self.folder)
        return {key: value for key, value in manifest.items() if key != "files"}

    def _write_stores(self) -> dict[str, Any]:
        """Store all documents; returns the metadata and counts for the manifest."""
        for document in self._tokenized_documents():
            writer = self.writers[self._split(document)]
            writer.add(document.digest, document.tokens, document.loss_mask, document.num_bytes)
        stores = {
            split: {key: totals[key] for key in ("documents", "tokens", "bytes", "fingerprint")}
            for split, totals in ((split, writer.finish()) for split, writer in self.writers.items())
        }
        if not stores["train"]["documents"]:
            left_out = describe_counts(self.dropped.counts)
            why = f"left out: {left_out}" if left_out else "it has no documents"
            raise UserError(f"the source `{self.source.name}` gives nothing to train on ({why})")
        self.dropped.save(self.folder / "dropped.json")
        return {**self.progress.metadata, "dropped": self.dropped.counts, **stores, **self._long_conversations()}

    def _long_conversations(self) -> dict[str, Any]:
        """How many conversations SFT will leave out or cut, which is said now and not after hours of pretraining.

        Raises:
            UserError: nothing would be left of a source that is trained on.
        """
        config = self.run.recipe.sft
        if self.stage != "sft" or config.packing == "concat":
            return {}
        store = TokenStore(self.folder / "train")
        left_out, cut = count_long_conversations(store, config.sequence_length)
        limit = f"sft.sequence_length ({config.sequence_length:,} tokens)"
        if left_out == store.num_documents and self.source.weight:
            raise UserError(
                f"no conversation of `{self.source.name}` comes to its first answer within {limit}: raise it, or give "
                f"shorter conversations"
            )
        if left_out or cut:
            console.print(
                f"  [yellow]![/] {self.source.name}: of {store.num_documents:,} conversations, {left_out:,} do not "
                f"come to an answer within {limit} and will not be trained on, and {cut:,} will be cut there",
                soft_wrap=True,
            )
        return {"long_conversations": {"left_out": left_out, "cut": cut}}

    def _tokenized_documents(self) -> Iterator[TokenizedDocument]:
        """The documents that are not stored yet: tokenized by the tasks, or here and now."""
        units = source_units(self.run.recipe, self.stage, self.source)
        if self.run.recipe.prepare.tasks > 1:
            return self._new_documents(tokenized_documents(self.run, units, self.progress, self.dropped))
        # Duplicates are dropped before tokenization, which is by far the most expensive step.
        cleaned = cleaned_documents(self.run, units[0], self.progress, self.dropped)
        return tokenize_documents(self._new_documents(cleaned), self.tokenizer)

    def _new_documents(self, documents: Iterable[DocumentT]) -> Iterator[DocumentT]:
        """The documents that are no duplicates and not stored yet."""
        for document in self.held_out.settle(self._unique_documents(documents)):
            if not self.writers[self._split(document)].has(document.digest):
                yield document

    def _unique_documents(self, documents: Iterable[DocumentT]) -> Iterator[DocumentT]:
        """The documents that are no duplicates, under a progress bar."""
        with progress_bar(f"prepare {self.stage}/{self.source.name}", None, "MB") as bar:
            megabytes = 0.0
            for document in documents:
                megabytes += document.num_bytes / 1e6
                bar.advance(document.num_bytes / 1e6)
                # Nobody knows the megabytes in advance: extrapolate from the fraction that has been read.
                if self.progress.fraction:
                    bar.set_total(megabytes / self.progress.fraction)
                reason = self.duplicates.drop_reason(document.digest)
                if not reason:
                    yield document
                    continue
                # Tasks store tokens only, so the text of what they prepared has to be decoded for the samples.
                if isinstance(document, CleanedDocument):
                    text = document.document.plain
                else:
                    text = self.tokenizer.decode(document.tokens.tolist())
                self.dropped.add(reason, text)

    def _split(self, document: CleanedDocument | TokenizedDocument) -> str:
        return "validation" if document.digest in self.held_out else "train"
