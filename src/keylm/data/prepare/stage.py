"""The `prepare` stage: every source is read, cleaned, freed of duplicates, split, encoded and stored.

Encoding is nine tenths of the work: the tokenizer's threads keep all cores busy with it while this process reads and
cleans what comes next. Memory holds a few batches of documents, an open shard, and about ten bytes per document to
know it by. With `prepare.tasks` the sources are divided between processes or machines, and put together here.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from keylm.common.console import console, progress
from keylm.common.documents import is_held_out
from keylm.common.errors import MissingSourceError, UserError
from keylm.common.files import read_json, write_json
from keylm.data.cleaning.deduplication import DigestSet, ExactDeduplicator
from keylm.data.cleaning.drop_log import DropLog
from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.data.prepare.tokenization import CleanedDocument, TokenizedDocument, tokenize_documents
from keylm.data.prepare.workers import (
    STAGES,
    cleaned_documents,
    find_stage_near_duplicates,
    source_units,
    tokenize_all,
    tokenized_documents,
    work_folder,
)
from keylm.data.sources.progress import ReadProgress
from keylm.recipe import fingerprint
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

SPLITS = ("train", "validation")
DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"

Item = TypeVar("Item", CleanedDocument, TokenizedDocument)


def run_prepare(run: Run) -> dict[str, Any]:
    """Write `{pretrain,sft}/{source}/{train,validation}/` in the stage's folder; returns counts and fingerprints.

    Can be stopped at any time: the same call goes on behind the last whole shard, to the same bytes.

    Raises:
        UserError: a source is unusable, gives nothing, or changed since the stage was stopped.
        KeyLMError: a shard could not be written, or a task failed.
    """
    if run.recipe.prepare.tasks > 1:
        tokenize_all(run)
    with _without_collector():
        facts = {stage: _prepare_stage(run, stage) for stage in STAGES}
    shutil.rmtree(work_folder(run), ignore_errors=True)
    rows = [row for stage in facts.values() for row in stage.values() if "missing" not in row]
    return {**facts, "fingerprint": fingerprint([row[side]["fingerprint"] for row in rows for side in SPLITS])}


@contextmanager
def _without_collector() -> Iterator[None]:
    """Do not look for cycles of garbage: millions of short lists are made, and none is part of one."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _prepare_stage(run: Run, stage: str) -> dict[str, Any]:
    """Prepare the sources of a stage in turn; returns their manifests."""
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    known = _Known(find_stage_near_duplicates(run, stage) if run.recipe.data.clean.near_duplicates else frozenset())
    return {
        source.name: _Job(run, stage, source, tokenizer, known).manifest() for source in run.recipe.sources_of(stage)
    }


@dataclass
class _Known:
    """The documents of a stage so far, in all of its sources."""

    near_duplicates: DigestSet | frozenset[int]
    seen: ExactDeduplicator = field(default_factory=ExactDeduplicator)

    def why_not(self, digest: int) -> str | None:
        """The reason not to take the document with this digest, if there is one; it is known from now on."""
        if not self.seen.add(digest):
            return DUPLICATE
        return NEAR_DUPLICATE if digest in self.near_duplicates else None


class _Job:
    """One source on its way into its stores."""

    def __init__(self, run: Run, stage: str, source: SourceConfig, tokenizer: Tokenizer, known: _Known) -> None:
        self.run, self.stage, self.source, self.tokenizer, self.known = run, stage, source, tokenizer, known
        self.folder = run.stage("prepare") / stage / source.name
        self.reading, self.dropped = ReadProgress(), DropLog(run.recipe.data.clean.samples)

    def manifest(self) -> dict[str, Any]:
        """What became of the source: done now, or read where it was done before."""
        path = self.folder / "manifest.json"
        if path.exists():
            self._remember()
        else:
            write_json(path, self._write_or_leave_out())
        return read_json(path)

    def _remember(self) -> None:
        """Take note of the documents of a source that was finished before."""
        for store in self.folder.glob("*/manifest.json"):
            for digest in TokenStore(store.parent).document_digests.tolist():
                self.known.seen.add(digest)

    def _write_or_leave_out(self) -> dict[str, Any]:
        settings = self.source.model_dump(mode="json", exclude={"weight"})
        self.writers = {side: self._writer(side) for side in SPLITS}
        try:
            return {"source": settings, **self._write()}
        except MissingSourceError as error:
            if self.source.on_missing == "stop" or any(writer.shards for writer in self.writers.values()):
                raise
            console.print(f"  [yellow]{self.source.name} is left out[/]: {error}")
            return {"source": settings, "missing": str(error)}

    def _writer(self, side: str) -> StoreWriter:
        return StoreWriter(self.folder / side, self.run.recipe.data.shard_tokens, conversations=self.stage == "sft")

    def _write(self) -> dict[str, Any]:
        for item in self._encoded():
            self.writers[self._side(item)].add(item.digest, item.tokens, item.learned, item.num_bytes)
        stores = {side: _summary(writer.finish()) for side, writer in self.writers.items()}
        if not stores["train"]["documents"]:
            raise UserError(f"the source `{self.source.name}` gives nothing to train on ({_reasons(self.dropped)})")
        self.dropped.save(self.folder / "dropped.json")
        return {**self.reading.facts, "dropped": self.dropped.counts, **stores}

    def _encoded(self) -> Iterator[TokenizedDocument]:
        """The documents that are not stored yet: as the tasks encoded them, or encoded here and now."""
        units = source_units(self.run.recipe, self.stage, self.source)
        if self.run.recipe.prepare.tasks > 1:
            return self._fresh(tokenized_documents(self.run, units, self.reading, self.dropped))
        items = cleaned_documents(self.run, units[0], self.reading, self.dropped)
        return tokenize_documents(self._fresh(items), self.tokenizer)

    def _fresh(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items that come for the first time and are not stored yet, under a progress bar."""
        with progress(f"prepare {self.stage}/{self.source.name}", None, "MB") as bar:
            megabytes = 0.0
            for item in items:
                megabytes += item.num_bytes / 1e6
                bar.advance(item.num_bytes / 1e6)
                if self.reading.share:
                    bar.set_total(megabytes / self.reading.share)
                reason = self.known.why_not(item.digest)
                if reason:
                    self.dropped.add(reason, self._text(item))
                elif not self.writers[self._side(item)].has(item.digest):
                    yield item

    def _side(self, item: CleanedDocument | TokenizedDocument) -> str:
        return "validation" if is_held_out(item.digest, self.run.recipe.data.validation_fraction) else "train"

    def _text(self, item: CleanedDocument | TokenizedDocument) -> str:
        return item.document.plain if isinstance(item, CleanedDocument) else self.tokenizer.decode(item.tokens.tolist())


def _summary(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("documents", "tokens", "bytes", "fingerprint")}


def _reasons(dropped: DropLog) -> str:
    if not dropped.counts:
        return "it has no documents"
    return "left out: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.counts.items()))
