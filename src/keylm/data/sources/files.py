"""`files`: local files of text, JSON lines or parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.file_formats import TABLE_SUFFIXES, read_file, suffix_of
from keylm.data.sources.file_selection import FileSelection, select_files
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.rows import NoTextError, RowFormat
from keylm.recipe.sources import BaseSourceConfig, FilesConfig

Clean = Callable[[Document], Document | str]
"""From a document to the cleaned one, or to the reason why it is dropped."""
TABLE_WITHOUT_TEXT = "table without text"


def read_files(
    source: FilesConfig,
    progress: ReadProgress,
    source_slice: SourceSlice = FULL,
    prefer_messages: bool = False,
) -> Iterator[Document]:
    """The documents of all files of a source, or of a slice of them: of validation files first, in the order of paths.

    Raises:
        MissingSourceError: nothing matches.
        UserError: a file cannot be read, or a row is not a document.
    """
    selection = _select(source)
    # Every slice finds the same files, so only one of them counts what is left out.
    if source_slice.index == 0:
        for path, reason in selection.left_out.items():
            progress.skip(reason, str(path))
    paths = source_slice.select(selection.files)
    progress.total = sum(path.stat().st_size for path in paths)
    row_format = RowFormat(source.text_column, source.messages_column, prefer_messages=prefer_messages)
    for path in paths:
        documents = read_file(path, row_format, progress)
        # Beside other files, a table without text is a table of something else; alone it is a mistake to be named.
        if len(selection.files) > 1 and suffix_of(path) in TABLE_SUFFIXES:
            documents = _unless_without_text(documents, progress)
        yield from documents


def _unless_without_text(documents: Iterator[Document], progress: ReadProgress) -> Iterator[Document]:
    """The documents of a file; none, and a count, if already its first row has no text."""
    try:
        first = next(documents, None)
    except NoTextError as error:
        progress.skip(TABLE_WITHOUT_TEXT, str(error))
        return
    if first:
        yield first
    yield from documents


def find_files(source: FilesConfig) -> list[Path]:
    """The files that a source is read from, each once: those of `validation_path`, then those of `path`, sorted.

    Raises:
        MissingSourceError: a variable is not set, or a pattern matches nothing.
        UserError: the path is empty, or something in it cannot be read.
    """
    return _select(source).files


def validation_digests(source: BaseSourceConfig, clean: Clean, prefer_messages: bool = False) -> frozenset[int] | None:
    """Digests of the documents in a source's own validation files; None if it has none.

    Args:
        source: The source.
        clean: Cleans a document as `prepare` does, on which the digest depends.
        prefer_messages: Of a row with a text and a conversation, read the conversation.

    Raises:
        MissingSourceError, UserError: as for `read_files`.
    """
    if not isinstance(source, FilesConfig) or source.validation_path is None:
        return None
    files = source.model_copy(update={"path": source.validation_path, "validation_path": None})
    cleaned = map(clean, read_files(files, ReadProgress(), prefer_messages=prefer_messages))
    try:
        return frozenset(document.digest for document in cleaned if not isinstance(document, str))
    except MissingSourceError:
        # Whoever reads the source learns that it is missing, and passes over it.
        if source.on_missing == "stop":
            raise
        return None


def _select(source: FilesConfig) -> FileSelection:
    selection = select_files(_as_list(source.path))
    if source.validation_path is None:
        return selection
    validation = select_files(_as_list(source.validation_path))
    # They may lie in the same folder.
    held_out = {path.resolve() for path in validation.files}
    files = [path for path in selection.files if path.resolve() not in held_out]
    return FileSelection([*validation.files, *files], {**validation.left_out, **selection.left_out})


def _as_list(patterns: str | list[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else patterns


class FilesSource(SourceType[FilesConfig]):
    """Local files."""

    def read_documents(self, source: FilesConfig, request: ReadRequest) -> Iterator[Document]:
        """See `read_files`."""
        return read_files(source, request.progress, request.source_slice, request.prefer_messages)

    def availability(self, source: FilesConfig) -> str:
        """The number of files, or `missing`."""
        try:
            return f"{len(find_files(source))} files"
        except MissingSourceError:
            return "missing"
