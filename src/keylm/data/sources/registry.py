"""Where documents come from: one reader per kind of source, all with the same face."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import assert_never

from keylm.common.documents import Document
from keylm.common.errors import KeyLMError, MissingSourceError
from keylm.data.sources import installed_docs
from keylm.data.sources.files import read_files
from keylm.data.sources.hub import read_hub
from keylm.data.sources.parents import ParentSources, interleave
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.instructions import constrained_chat, repetition
from keylm.instructions.constraints.catalog import CONSTRAINT_SETS
from keylm.instructions.generate import generate_conversations
from keylm.recipe.sources import (
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    SourceConfig,
    TyposConfig,
)
from keylm.typos.generate import generate_typos

NO_PARENTS = ParentSources()
"""What a source that is made of no others needs to know of them."""


def read_source(
    source: SourceConfig,
    seed: int,
    reading: ReadProgress | None = None,
    *,
    part: SourceSlice = FULL,
    siblings: ParentSources = NO_PARENTS,
) -> Iterator[Document]:
    """The documents of a source, always in the same order, at most `source.max_documents` of them.

    `reading` is kept up to date while the documents are taken. Of files and of data sets on the hub a `part` can be
    read, with its share of `max_documents`. Drills and typos are made of what is trained on of their `siblings`.

    Raises:
        MissingSourceError: the source cannot be had at all.
        UserError: it holds what is not a document.
        KeyLMError: it cannot be had to its end.
    """
    reading = reading or ReadProgress()
    documents = _whole_or_nothing(_read_all(source, seed, reading, part, siblings))
    if source.max_documents is None:
        yield from documents
        return
    limit = -(-source.max_documents // part.count)
    for number, document in enumerate(islice(documents, limit), start=1):
        reading.done, reading.total = number, limit
        yield document


def read_available(source: SourceConfig, seed: int, reading: ReadProgress | None = None) -> Iterator[Document]:
    """What `read_source` gives, or nothing where the recipe lets the source be missing, and it is.

    Raises:
        MissingSourceError, UserError, KeyLMError: as for `read_source`.
    """
    try:
        yield from read_source(source, seed, reading)
    except MissingSourceError:
        if source.on_missing == "stop":
            raise


def _whole_or_nothing(documents: Iterator[Document]) -> Iterator[Document]:
    """A source that breaks off is not a missing one: going on without its rest would be another data set."""
    has_begun = False
    try:
        for document in documents:
            has_begun = True
            yield document
    except MissingSourceError as error:
        if has_begun:
            raise KeyLMError(f"{error}; what was read before is kept, run again") from error
        raise


def _read_all(
    source: SourceConfig, seed: int, reading: ReadProgress, part: SourceSlice, siblings: ParentSources
) -> Iterator[Document]:
    match source:
        case FilesConfig():
            return read_files(source, reading, part=part)
        case HubConfig():
            return read_hub(source, reading, part=part)
        case InstalledDocsConfig():
            return installed_docs.read_installed_docs(reading)
        case InstructionsConfig():
            talks = generate_conversations(source.num_documents, seed, CONSTRAINT_SETS[source.constraint_set])
            return _counted((Document(messages=tuple(talk)) for talk in talks), source.num_documents, reading)
        case RepetitionConfig():
            words = repetition.words_of(interleave(_bases(source, seed, siblings)))
            texts = repetition.generate_repetition(source.num_documents, seed, words)
            return _counted((Document(text=text) for text in texts), source.num_documents, reading)
        case TyposConfig():
            made = generate_typos(interleave(_bases(source, seed, siblings)), source, seed)
            return _counted(made, source.num_documents, reading)
        case ConstrainedChatConfig():
            return constrained_chat.generate_constrained_chat(read_source(source.from_source, seed, reading), seed)
        case _:
            assert_never(source)


def _bases(source: RepetitionConfig | TyposConfig, seed: int, siblings: ParentSources) -> list[Iterator[Document]]:
    """What is trained on of each of the sources that `source` is made of."""
    return [siblings.trained_on(base, read_available(base, seed)) for base in map(siblings.named, source.from_sources)]


def _counted(documents: Iterator[Document], total: int, reading: ReadProgress) -> Iterator[Document]:
    """Generated documents, of which it is known how many there will be."""
    reading.total = total
    for document in documents:
        reading.done += 1
        yield document
