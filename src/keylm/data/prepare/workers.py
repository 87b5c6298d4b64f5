"""How the work of `prepare` is divided: one unit is a contiguous part of one source, read, cleaned and encoded.

Units are numbered in the order in which their documents are put together, so that the store is the same however many
there are. Duplicates between units are found when they are put together, in `keylm.data.prepare.stage`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datatrove.pipeline.base import PipelineStep

from keylm.common.errors import MissingSourceError, UserError
from keylm.common.files import read_json, write_json
from keylm.data.cleaning.cleaner import Cleaner
from keylm.data.cleaning.decontamination import load_decontaminator
from keylm.data.cleaning.deduplication import DigestSet
from keylm.data.cleaning.drop_log import DropLog
from keylm.data.cleaning.near_duplicates import find_near_duplicates
from keylm.data.prepare.executors import run_tasks
from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.data.prepare.tokenization import CleanedDocument, TokenizedDocument, tokenize_documents
from keylm.data.sources.hub import resolve
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.progress import ReadProgress, SourceSlice
from keylm.data.sources.registry import read_source
from keylm.recipe import Recipe
from keylm.recipe.sources import ConstrainedChatConfig, FilesConfig, HubConfig, SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer

STAGES = ("pretrain", "sft")


@dataclass(frozen=True)
class Unit:
    """A part of one source of one stage."""

    stage: str
    source: SourceConfig
    part: SourceSlice

    def folder(self, run: Run) -> Path:
        """Where a task leaves what it encoded."""
        return work_folder(run) / self.stage / self.source.name / f"{self.part.index:05d}"


def work_folder(run: Run) -> Path:
    """Where tasks work; gone when everything is put together."""
    return run.stage("prepare") / "tasks"


def source_units(recipe: Recipe, stage: str, source: SourceConfig) -> list[Unit]:
    """The parts of a source. Files are divided into `prepare.tasks` parts; what is generated is one."""
    count = recipe.prepare.tasks if isinstance(source, FilesConfig | HubConfig) else 1
    return [Unit(stage, source, SourceSlice(index, count)) for index in range(count)]


def stage_units(recipe: Recipe, stage: str) -> list[Unit]:
    """The parts of all sources of a stage, in the order in which they are put together."""
    return [unit for source in recipe.sources_of(stage) for unit in source_units(recipe, stage, source)]


def reading_seed(recipe: Recipe, stage: str) -> int:
    """The seed of a stage's sources: another for SFT, so that generated conversations are not those of pretraining."""
    return recipe.seed + (stage == "sft")


def cleaned_documents(run: Run, unit: Unit, reading: ReadProgress, dropped: DropLog) -> Iterator[CleanedDocument]:
    """The cleaned documents of a unit; `dropped` counts the others by reason.

    Raises:
        UserError: the source is unusable, or holds plain text for SFT.
    """
    recipe, source = run.recipe, unit.source
    cleaner = Cleaner(run, source)
    seed = reading_seed(recipe, unit.stage)
    room = (source.max_bytes or float("inf")) / unit.part.count
    siblings = ParentSources(recipe.sources_of(unit.stage), partial(Cleaner, run), recipe.data.validation_fraction)
    for document in read_source(source, seed, reading, part=unit.part, siblings=siblings):
        if unit.stage == "sft" and document.messages is None:
            raise UserError(
                f"the source `{source.name}` of sft.sources holds plain text, in which there is no assistant to learn "
                f"from: give it conversations, or move it to data.sources"
            )
        cleaned = cleaner(document)
        if isinstance(cleaned, str):
            dropped.add(cleaned, document.plain)
            continue
        item = CleanedDocument(cleaned, cleaned.digest, cleaned.num_bytes)
        yield item
        room -= item.num_bytes
        if room <= 0:
            return


def tokenize_all(run: Run) -> None:
    """Let the recipe's executor encode every unit into a folder of its own.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    num_units = sum(len(stage_units(run.recipe, stage)) for stage in STAGES)
    place = work_folder(run) / "executor"
    run_tasks(run.recipe.prepare, [TokenizeUnits(WorkerContext.of(run))], num_units, place, "prepare: encode")


def find_stage_near_duplicates(run: Run, stage: str) -> DigestSet:
    """Digests of the documents of a stage that come again in nearly the same words.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    texts = partial(_texts, WorkerContext.of(run), stage)
    execute = partial(run_tasks, run.recipe.prepare)
    return find_near_duplicates(texts, len(stage_units(run.recipe, stage)), work_folder(run) / "near" / stage, execute)


def tokenized_documents(
    run: Run, units: list[Unit], reading: ReadProgress, dropped: DropLog
) -> Iterator[TokenizedDocument]:
    """What the tasks encoded of these units, in order.

    Raises:
        MissingSourceError: the source could not be had.
        KeyLMError: a shard is damaged.
    """
    reading.total = len(units)
    for number, unit in enumerate(units):
        place = unit.folder(run)
        if (place / "missing.json").exists():
            raise MissingSourceError(read_json(place / "missing.json")["missing"])
        dropped.load(place / "dropped.json")
        yield from _documents(TokenStore(place))
        reading.done = number + 1


@dataclass(frozen=True)
class WorkerContext:
    """A run, with what a process elsewhere needs to work on it."""

    run: Run
    working_folder: Path

    @classmethod
    def of(cls, run: Run) -> WorkerContext:
        """The run as this process sees it; what all tasks would look up or build is done once, here."""
        load_decontaminator(run)
        return cls(Run(run.folder.resolve(), _pin(run.recipe)), Path.cwd())

    def open(self) -> Run:
        """The run; relative paths of its recipe hold from now on."""
        os.chdir(self.working_folder)
        return self.run


class TokenizeUnits(PipelineStep):  # type: ignore[misc]
    """datatrove's block for it: task number `rank` encodes unit number `rank`."""

    name = "KeyLM: read, clean, encode"

    def __init__(self, here: WorkerContext) -> None:
        super().__init__()
        self.here = here

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ARG002
        """Encode the unit, going on behind the last whole shard of a task that was stopped."""
        run = self.here.open()
        tokenize_unit(run, [unit for stage in STAGES for unit in stage_units(run.recipe, stage)][rank])


def tokenize_unit(run: Run, unit: Unit) -> None:
    """Write the unit's documents, and what was dropped, to its folder."""
    place, dropped = unit.folder(run), DropLog(run.recipe.data.clean.samples)
    writer = StoreWriter(place, run.recipe.data.shard_tokens, conversations=unit.stage == "sft")
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    items = cleaned_documents(run, unit, ReadProgress(), dropped)
    try:
        for item in tokenize_documents((item for item in items if not writer.has(item.digest)), tokenizer):
            writer.add(item.digest, item.tokens, item.learned, item.num_bytes)
    except MissingSourceError as error:
        if unit.source.on_missing == "stop":
            raise
        write_json(place / "missing.json", {"missing": str(error)})
    writer.finish()
    dropped.save(place / "dropped.json")


def _texts(here: WorkerContext, stage: str, part: int) -> Iterator[tuple[int, str]]:
    """Digest and text of every document of unit number `part`; none where the source may be missing, and is."""
    run = here.open()
    unit = stage_units(run.recipe, stage)[part]
    try:
        for item in cleaned_documents(run, unit, ReadProgress(), DropLog(0)):
            yield item.digest, item.document.plain
    except MissingSourceError:
        if unit.source.on_missing == "stop":
            raise


def _pin(recipe: Recipe) -> Recipe:
    """The recipe with the commits of its data sets on the hub, so that all tasks read the same."""
    data = recipe.data.model_copy(update={"sources": [_pin_source(source) for source in recipe.data.sources]})
    sft = recipe.sft.model_copy(update={"sources": [_pin_source(source) for source in recipe.sft.sources]})
    return recipe.model_copy(update={"data": data, "sft": sft})


def _pin_source(source: SourceConfig) -> SourceConfig:
    if isinstance(source, ConstrainedChatConfig):
        return source.model_copy(update={"from_source": _pin_source(source.from_source)})
    if not isinstance(source, HubConfig):
        return source
    try:
        return source.model_copy(update={"revision": resolve(source).commit})
    except MissingSourceError:
        if source.on_missing == "stop":
            raise
        return source


def _documents(store: TokenStore) -> Iterator[TokenizedDocument]:
    ends = store.document_ends
    starts = np.concatenate([[0], ends])[:-1]
    columns = (store.document_digests, store.document_bytes, starts, ends)
    for digest, num_bytes, start, end in zip(*(column.tolist() for column in columns), strict=True):
        yield TokenizedDocument(digest, num_bytes, store.tokens(start, end), store.learned(start, end))
