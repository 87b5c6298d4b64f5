"""The source types, and reading any source by them. A new type is a config class, a file here, and an entry below."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from keylm.common.documents import Document
from keylm.common.errors import KeyLMError, MissingSourceError
from keylm.data.sources.backtranslation import BacktranslationSource
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.constrained_chat import ConstrainedChatSource
from keylm.data.sources.files import FilesSource
from keylm.data.sources.hub import HubSource
from keylm.data.sources.installed_docs import InstalledDocsSource
from keylm.data.sources.instructions import InstructionsSource
from keylm.data.sources.parents import NO_PARENTS, ParentSources, interleave
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.repetition import RepetitionSource
from keylm.data.sources.topics import TopicsSource
from keylm.data.sources.typos import TyposSource
from keylm.recipe.sources import (
    BacktranslationConfig,
    BaseSourceConfig,
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    TopicsConfig,
    TyposConfig,
)


def source_type(source: BaseSourceConfig) -> SourceType[Any]:
    """The behavior of a source."""
    return _SOURCE_TYPES[type(source)]


# Here, and not in the config classes: recipes are read by commands that must start without the readers' libraries.
_SOURCE_TYPES: dict[type[BaseSourceConfig], SourceType[Any]] = {
    FilesConfig: FilesSource(),
    HubConfig: HubSource(),
    InstalledDocsConfig: InstalledDocsSource(),
    InstructionsConfig: InstructionsSource(),
    RepetitionConfig: RepetitionSource(),
    TopicsConfig: TopicsSource(),
    TyposConfig: TyposSource(),
    BacktranslationConfig: BacktranslationSource(source_type),
    ConstrainedChatConfig: ConstrainedChatSource(source_type),
}


def read_source(
    source: BaseSourceConfig,
    seed: int,
    progress: ReadProgress | None = None,
    *,
    source_slice: SourceSlice = FULL,
    parents: ParentSources = NO_PARENTS,
    prefer_messages: bool = False,
) -> Iterator[Document]:
    """The documents of a source, always in the same order, at most `source.max_documents` of them.

    Args:
        source: the settings.
        seed: seed of whatever is generated.
        progress: updated while the documents are taken.
        source_slice: the slice to read, with its share of `max_documents`, if the source is divisible.
        parents: the mixture that the source belongs to, for sources that are made from others of it.
        prefer_messages: of a row with a text and a conversation, read the conversation.

    Raises:
        MissingSourceError: the source is not available.
        UserError: it holds something that is not a document.
        KeyLMError: it became unavailable while it was read.
    """
    progress = progress or ReadProgress()
    parent_documents = _parent_documents(source, seed, progress, parents)
    request = ReadRequest(seed, progress, source_slice, parent_documents, prefer_messages)
    documents = source_type(source).read_documents(source, request)
    # Rounded up, so that no slice is left without documents.
    limit = None if source.max_documents is None else -(-source.max_documents // source_slice.count)
    has_begun = False
    try:
        for number, document in enumerate(islice(documents, limit), start=1):
            has_begun = True
            if limit is not None:
                # The reader's own unit would say that the source is hardly begun when the limit is reached.
                progress.done, progress.total = number, limit
            yield document
    except MissingSourceError as error:
        # A source that breaks off is not a missing one: to go on without its rest would be another data set.
        if has_begun:
            raise KeyLMError(f"{error}; what was read before is kept, run again") from error
        raise


def read_available(source: BaseSourceConfig, seed: int, progress: ReadProgress | None = None) -> Iterator[Document]:
    """What `read_source` gives; nothing if the source is not available and its `on_missing` is `redistribute`.

    Raises:
        MissingSourceError, UserError, KeyLMError: as for `read_source`.
    """
    try:
        yield from read_source(source, seed, progress)
    except MissingSourceError:
        if source.on_missing == "stop":
            raise


def _parent_documents(
    source: BaseSourceConfig, seed: int, progress: ReadProgress, parents: ParentSources
) -> Iterator[Document]:
    """The documents that a source is made from.

    A source that edits another one gets that one as it is, and is itself cleaned afterwards. A source that is made from
    the text of others gets what is trained on of them, since their validation documents must not leak into it.
    """
    origin = source_type(source).origin(source)
    if origin is not source:
        # What is made from plain text takes plain text; constraints are added to conversations.
        documents = read_source(origin, seed, progress, parents=parents, prefer_messages=not source.uses_training_text)
        return parents.training_documents(origin, documents) if source.uses_training_text else documents
    return interleave(
        parents.training_documents(parent, read_available(parent, seed))
        for parent in map(parents.named, source.parent_names)
    )
