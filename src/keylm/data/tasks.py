"""How the work of `prepare` is divided: one unit is a contiguous part of one source, read, cleaned and encoded.

Units are numbered in the order in which their documents are put together, so that the store is the same however many
there are. Duplicates between units are found when they are put together, in `keylm.data.prepare`.
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

from keylm.data import executors, hub, sources
from keylm.data.cleaning import Cleaner, contamination, near_duplicates
from keylm.data.cleaning.dropped import Dropped
from keylm.data.cleaning.seen import Digests
from keylm.data.encode import Admitted, Encoded, encode
from keylm.data.reading import Part, Reading
from keylm.data.siblings import Siblings
from keylm.data.store import StoreWriter, TokenStore
from keylm.errors import MissingSourceError, UserError
from keylm.recipe import Files, Hub, Recipe, Source, Verified
from keylm.run import Run, read_json, write_json
from keylm.tokenizer import Tokenizer

STAGES = ("pretrain", "sft")


@dataclass(frozen=True)
class Unit:
    """A part of one source of one stage."""

    stage: str
    source: Source
    part: Part

    def folder(self, run: Run) -> Path:
        """Where a task leaves what it encoded."""
        return folder(run) / self.stage / self.source.name / f"{self.part.index:05d}"


def folder(run: Run) -> Path:
    """Where tasks work; gone when everything is put together."""
    return run.stage("prepare") / "tasks"


def units(recipe: Recipe, stage: str, source: Source) -> list[Unit]:
    """The parts of a source. Files are divided into `prepare.tasks` parts; what is generated is one."""
    count = recipe.prepare.tasks if isinstance(source, Files | Hub) else 1
    return [Unit(stage, source, Part(index, count)) for index in range(count)]


def units_of(recipe: Recipe, stage: str) -> list[Unit]:
    """The parts of all sources of a stage, in the order in which they are put together."""
    return [unit for source in recipe.sources_of(stage) for unit in units(recipe, stage, source)]


def reading_seed(recipe: Recipe, stage: str) -> int:
    """The seed of a stage's sources: another for SFT, so that generated conversations are not those of pretraining."""
    return recipe.seed + (stage == "sft")


def admitted(run: Run, unit: Unit, reading: Reading, dropped: Dropped) -> Iterator[Admitted]:
    """The cleaned documents of a unit; `dropped` counts the others by reason.

    Raises:
        UserError: the source is unusable, or holds plain text for SFT.
    """
    recipe, source = run.recipe, unit.source
    cleaner = Cleaner(run, source)
    seed = reading_seed(recipe, unit.stage)
    room = (source.max_bytes or float("inf")) / unit.part.count
    siblings = Siblings(recipe.sources_of(unit.stage), partial(Cleaner, run), recipe.data.validation_fraction)
    for document in sources.read(source, seed, reading, part=unit.part, siblings=siblings):
        if unit.stage == "sft" and document.messages is None:
            raise UserError(
                f"the source `{source.name}` of sft.sources holds plain text, in which there is no assistant to learn "
                f"from: give it conversations, or move it to data.sources"
            )
        cleaned = cleaner(document)
        if isinstance(cleaned, str):
            dropped.add(cleaned, document.plain)
            continue
        item = Admitted(cleaned, cleaned.digest, cleaned.num_bytes)
        yield item
        room -= item.num_bytes
        if room <= 0:
            return


def encode_all(run: Run) -> None:
    """Let the recipe's executor encode every unit into a folder of its own.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    num_units = sum(len(units_of(run.recipe, stage)) for stage in STAGES)
    place = folder(run) / "executor"
    executors.run(run.recipe.prepare, [EncodeUnits(Here.of(run))], num_units, place, "prepare: encode")


def near_duplicates_of(run: Run, stage: str) -> Digests:
    """Digests of the documents of a stage that come again in nearly the same words.

    Raises:
        UserError: a source is unusable, or (Slurm) the jobs are not done yet.
        KeyLMError: a task failed.
    """
    texts = partial(_texts, Here.of(run), stage)
    execute = partial(executors.run, run.recipe.prepare)
    return near_duplicates.find(texts, len(units_of(run.recipe, stage)), folder(run) / "near" / stage, execute)


def encoded(run: Run, units: list[Unit], reading: Reading, dropped: Dropped) -> Iterator[Encoded]:
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
class Here:
    """A run, with what a process elsewhere needs to work on it."""

    run: Run
    working_folder: Path

    @classmethod
    def of(cls, run: Run) -> Here:
        """The run as this process sees it; what all tasks would look up or build is done once, here."""
        contamination.load(run)
        return cls(Run(run.folder.resolve(), _pin(run.recipe)), Path.cwd())

    def open(self) -> Run:
        """The run; relative paths of its recipe hold from now on."""
        os.chdir(self.working_folder)
        return self.run


class EncodeUnits(PipelineStep):  # type: ignore[misc]
    """datatrove's block for it: task number `rank` encodes unit number `rank`."""

    name = "KeyLM: read, clean, encode"

    def __init__(self, here: Here) -> None:
        super().__init__()
        self.here = here

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ARG002
        """Encode the unit, going on behind the last whole shard of a task that was stopped."""
        run = self.here.open()
        encode_unit(run, [unit for stage in STAGES for unit in units_of(run.recipe, stage)][rank])


def encode_unit(run: Run, unit: Unit) -> None:
    """Write the unit's documents, and what was dropped, to its folder."""
    place, dropped = unit.folder(run), Dropped(run.recipe.data.clean.samples)
    writer = StoreWriter(place, run.recipe.data.shard_tokens, conversations=unit.stage == "sft")
    tokenizer = Tokenizer.load(run.stage("tokenizer"))
    items = admitted(run, unit, Reading(), dropped)
    try:
        for item in encode((item for item in items if not writer.has(item.digest)), tokenizer):
            writer.add(item.digest, item.tokens, item.learned, item.num_bytes)
    except MissingSourceError as error:
        if unit.source.missing == "stop":
            raise
        write_json(place / "missing.json", {"missing": str(error)})
    writer.finish()
    dropped.save(place / "dropped.json")


def _texts(here: Here, stage: str, part: int) -> Iterator[tuple[int, str]]:
    """Digest and text of every document of unit number `part`; none where the source may be missing, and is."""
    run = here.open()
    unit = units_of(run.recipe, stage)[part]
    try:
        for item in admitted(run, unit, Reading(), Dropped(0)):
            yield item.digest, item.document.plain
    except MissingSourceError:
        if unit.source.missing == "stop":
            raise


def _pin(recipe: Recipe) -> Recipe:
    """The recipe with the commits of its data sets on the hub, so that all tasks read the same."""
    data = recipe.data.model_copy(update={"sources": [_pin_source(source) for source in recipe.data.sources]})
    sft = recipe.sft.model_copy(update={"sources": [_pin_source(source) for source in recipe.sft.sources]})
    return recipe.model_copy(update={"data": data, "sft": sft})


def _pin_source(source: Source) -> Source:
    if isinstance(source, Verified):
        return source.model_copy(update={"of": _pin_source(source.of)})
    if not isinstance(source, Hub):
        return source
    try:
        return source.model_copy(update={"revision": hub.resolve(source).commit})
    except MissingSourceError:
        if source.missing == "stop":
            raise
        return source


def _documents(store: TokenStore) -> Iterator[Encoded]:
    ends = store.document_ends
    starts = np.concatenate([[0], ends])[:-1]
    columns = (store.document_digests, store.document_bytes, starts, ends)
    for digest, num_bytes, start, end in zip(*(column.tolist() for column in columns), strict=True):
        yield Encoded(digest, num_bytes, store.tokens(start, end), store.learned(start, end))
