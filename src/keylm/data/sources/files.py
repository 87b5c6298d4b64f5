"""`files`: local files of text, JSON lines or parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.file_formats import TABLE_SUFFIXES, read_file, suffix_of
from keylm.data.sources.file_selection import FileSelection, select_files
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.rows import NoTextError, RowFormat
from keylm.recipe.sources import FilesConfig

TABLE_WITHOUT_TEXT = "table without text"


def read_files(
    source: FilesConfig,
    progress: ReadProgress,
    source_slice: SourceSlice = FULL,
    prefer_messages: bool = False,
) -> Iterator[Document]:
    """The documents of all files that `source.path` matches, or of a slice of them, in the order of their paths.

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
    """The files that `source.path` matches, sorted, each once.

    Raises:
        MissingSourceError: a variable is not set, or a pattern matches nothing.
        UserError: the path is empty, or something in it cannot be read.
    """
    return _select(source).files


def _select(source: FilesConfig) -> FileSelection:
    return select_files([source.path] if isinstance(source.path, str) else source.path)


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
