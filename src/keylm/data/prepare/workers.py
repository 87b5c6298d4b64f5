"""How the work of `prepare` is divided: a unit is one slice of one source, read, cleaned and tokenized by one task.

Units are numbered in the order in which their documents are merged, so that the token stores are the same for any
number of tasks. Duplicates between units are found when they are merged, in `keylm.data.prepare.stage`.
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
from keylm.data.prepare.outputs import work_folder
from keylm.data.prepare.token_store import StoreWriter, TokenStore
from keylm.data.prepare.tokenization import CleanedDocument, TokenizedDocument, tokenize_documents
from keylm.data.sources.parents import ParentSources
from keylm.data.sources.progress import ReadProgress, SourceSlice
from keylm.data.sources.registry import read_source, source_type
from keylm.recipe import MIXTURE_STAGES, Recipe, fingerprint
from keylm.recipe.fingerprint import source_inputs
from keylm.recipe.sources import SourceConfig
from keylm.run import Run
from keylm.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Unit:
    """A slice of one source of one stage."""

    stage: str
    source: SourceConfig
    source_slice: SourceSlice

    def folder(self, run: Run) -> Path:
        """Where a task stores what it tokenized."""
        # With the count, because a recipe may be given another number of tasks after a stop.
        name = f"{self.source_slice.index:05d}-of-{self.source_slice.count:05d}"
        return work_folder(run) / self.stage / self.source.name / name


def source_units(recipe: Recipe, stage: str, source: SourceConfig) -> list[Unit]:
    """The units of a source: `prepare.tasks` slices if it is divisible, else one."""
    count = recipe.prepare.tasks if source.is_divisible else 1
    return [Unit(stage, source, SourceSlice(index, count)) for index in range(count)]


def stage_units(recipe: Recipe, stage: str) -> list[Unit]:
    """The units of all sources of a stage, in the order in which they are merged."""
    return [unit for source in recipe.sources_of(stage) for unit in source_units(recipe, stage, source)]


def source_seed(recipe: Recipe, stage: str) -> int:
    """The seed of a stage's sources: another one for SFT, so that it does not generate pretraining's conversations."""
    return recipe.seed + (stage == "sft")


def cleaned_documents(run: Run, unit: Unit, progress: ReadProgress, dropped: DropLog) -> Iterator[CleanedDocument]:
    """The cleaned documents of a unit, up to its share of `max_bytes`; the others are counted in `dropped`.

    Raises:
        UserError: the source is unusable, or contains plain text for SFT.
    """
    recipe, source = run.recipe, unit.source
    cleaner = Cleaner(run, source)
    progress.skip = dropped.add
    remaining_bytes = (source.max_bytes or float("inf")) / unit.source_slice.count
    documents = read_source(
        source,
        source_seed(recipe, unit.stage),
        progress,
        source_slice=unit.source_slice,
        parents=ParentSources(recipe.sources_of(unit.stage), partial(Cleaner, run), recipe.data.validation_fraction),
        prefer_messages=unit.stage == "sft",
    )
    for document in documents:
        if unit.stage == "sft" and document.messages is None:
            place = f" ({progress.location})" if progress.location else ""
            raise UserError(
                f"the source `{source.name}` of sft.sources holds plain text{place}, in which there is no assistant to "
                f"learn from: give it conversations, or move it to data.sources"
            )
        cleaned = cleaner(document)
        if isinstance(cleaned, str):
            dropped.add(cleaned, document.plain)
            continue
        num_bytes = cleaned.num_bytes
        yield CleanedDocument(cleaned, cleaned.digest, num_bytes)
        # After the document, so that at least one comes from every slice.
        remaining_bytes -= num_bytes
        if remaining_bytes <= 0:
            return


def find_stage_near_duplicates(run: Run, stage: str) -> DigestSet:
    """Digests of the documents of a stage to drop because nearly the same text occurs elsewhere in it.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    unit_texts = partial(_unit_texts, WorkerContext.create(run), stage)
    run_pipeline = partial(run_tasks, run.recipe.prepare)
    folder = work_folder(run) / f"near-{_units_fingerprint(run)}" / stage
    return find_near_duplicates(unit_texts, len(stage_units(run.recipe, stage)), folder, run_pipeline)


def tokenize_units(run: Run) -> None:
    """Run a task for every unit of all stages, by the recipe's executor.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    # All stages at once, so that the last units of one do not keep workers waiting.
    num_units = sum(len(stage_units(run.recipe, stage)) for stage in MIXTURE_STAGES)
    folder = work_folder(run) / f"executor-{_units_fingerprint(run)}"
    run_tasks(run.recipe.prepare, [TokenizeUnit(WorkerContext.create(run))], num_units, folder, "prepare: tokenize")


def _units_fingerprint(run: Run) -> str:
    """Fingerprint of all units, for the record of finished tasks: it has only their numbers, and these may shift."""
    recipe = run.recipe
    inputs = [
        source_inputs(recipe, stage, source.name) for stage in MIXTURE_STAGES for source in recipe.sources_of(stage)
    ]
    return fingerprint(recipe.prepare.tasks, inputs)


def tokenized_documents(
    run: Run, units: list[Unit], progress: ReadProgress, dropped: DropLog
) -> Iterator[TokenizedDocument]:
    """What the tasks stored for these units, in order; adds their counts to `dropped`.

    Raises:
        MissingSourceError: the source was not available.
        KeyLMError: a shard is damaged.
    """
    for unit in progress.count(units, len(units)):
        folder = unit.folder(run)
        if (folder / "missing.json").exists():
            raise MissingSourceError(read_json(folder / "missing.json")["missing"])
        dropped.add_saved(folder / "dropped.json")
        store = TokenStore(folder)
        ends = store.document_ends
        columns = (store.document_digests, store.document_bytes, np.concatenate([[0], ends])[:-1], ends)
        for digest, num_bytes, start, end in zip(*(column.tolist() for column in columns), strict=True):
            yield TokenizedDocument(digest, num_bytes, store.tokens(start, end), store.loss_mask(start, end))


@dataclass(frozen=True)
class WorkerContext:
    """A run as a process on another machine needs it to work on a unit."""

    run: Run
    working_folder: Path

    @classmethod
    def create(cls, run: Run) -> WorkerContext:
        """The context of this process, with everything done once that all tasks would otherwise repeat."""
        load_decontaminator(run)
        recipe = run.recipe
        # All tasks must read the same commits, even if a data set is updated while they run.
        data, sft = (
            section.model_copy(update={"sources": [source_type(source).pin(source) for source in section.sources]})
            for section in (recipe.data, recipe.sft)
        )
        return cls(Run(run.folder.resolve(), recipe.model_copy(update={"data": data, "sft": sft})), Path.cwd())

    def open_run(self) -> Run:
        """The run; changes to the working folder, which the recipe's relative paths refer to."""
        os.chdir(self.working_folder)
        return self.run


class TokenizeUnit(PipelineStep):  # type: ignore[misc]
    """datatrove step: task number `rank` reads, cleans, tokenizes and stores unit number `rank`."""

    name = "KeyLM: read, clean, tokenize"

    def __init__(self, context: WorkerContext) -> None:
        super().__init__()
        self.context = context

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ARG002
        """Tokenize the unit; a task that was stopped continues after its last complete shard."""
        run = self.context.open_run()
        unit = [unit for stage in MIXTURE_STAGES for unit in stage_units(run.recipe, stage)][rank]
        folder, dropped = unit.folder(run), DropLog(run.recipe.data.clean.samples)
        writer = StoreWriter(folder, run.recipe.data.shard_tokens, conversations=unit.stage == "sft")
        tokenizer = Tokenizer.load(run.stage("tokenizer"))
        documents = cleaned_documents(run, unit, ReadProgress(), dropped)
        new_documents = (document for document in documents if not writer.has(document.digest))
        try:
            for document in tokenize_documents(new_documents, tokenizer):
                writer.add(document.digest, document.tokens, document.loss_mask, document.num_bytes)
        except MissingSourceError as error:
            if unit.source.on_missing == "stop":
                raise
            # The task succeeds; the merge reads this and leaves the source out.
            write_json(folder / "missing.json", {"missing": str(error)})
        writer.finish()
        dropped.save(folder / "dropped.json")


def _unit_texts(context: WorkerContext, stage: str, number: int) -> Iterator[tuple[int, str]]:
    """Digest and text of every document of a unit; none if its source is missing and may be."""
    run = context.open_run()
    unit = stage_units(run.recipe, stage)[number]
    try:
        # Cleaned as for tokenization, so that digests are the same there; what is dropped is counted there.
        for document in cleaned_documents(run, unit, ReadProgress(), DropLog(0)):
            yield document.digest, document.document.plain
    except MissingSourceError:
        if unit.source.on_missing == "stop":
            raise
