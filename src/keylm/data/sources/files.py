"""`files`: local files of text, JSON lines or parquet."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError
from keylm.data.sources.base import ReadRequest, SourceType
from keylm.data.sources.file_formats import SUFFIXES, read_file
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.rows import RowFormat
from keylm.recipe.sources import FilesConfig


def read_files(source: FilesConfig, progress: ReadProgress, source_slice: SourceSlice = FULL) -> Iterator[Document]:
    """The documents of all files that `source.path` matches, or of a slice of them, in the order of their paths.

    Raises:
        MissingSourceError: nothing matches.
        UserError: a file cannot be read, or a row is not a document.
    """
    paths = source_slice.select(find_files(source))
    progress.total = sum(path.stat().st_size for path in paths)
    row_format = RowFormat(source.text_column, source.messages_column)
    for path in paths:
        yield from read_file(path, row_format, progress)


def find_files(source: FilesConfig) -> list[Path]:
    """The files that `source.path` matches, sorted, each once.

    Raises:
        MissingSourceError: a variable is not set, or a pattern matches nothing.
    """
    patterns = [source.path] if isinstance(source.path, str) else source.path
    return sorted({path for pattern in patterns for path in _expand(pattern)})


def _expand(pattern: str) -> list[Path]:
    """The files of a path, folder or glob pattern, with `~` and `$VARIABLES` expanded."""
    for name in re.findall(r"\$\{?(\w+)", pattern):
        if name not in os.environ:
            raise MissingSourceError(f"the path `{pattern}` needs the environment variable {name}, which is not set")
    path = Path(os.path.expandvars(pattern)).expanduser()
    if path.is_file():
        # A file that is named outright is read or refused, whatever its suffix.
        return [path]
    matches = [path] if path.is_dir() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    candidates = [file for match in matches for file in (match.rglob("*") if match.is_dir() else [match])]
    files = [file for file in candidates if file.name.endswith(SUFFIXES) and file.is_file()]
    if not files:
        raise MissingSourceError(f"`{pattern}` matches no file that can be read ({', '.join(SUFFIXES)})")
    return files


class FilesSource(SourceType[FilesConfig]):
    """Local files."""

    def read_documents(self, source: FilesConfig, request: ReadRequest) -> Iterator[Document]:
        """See `read_files`."""
        return read_files(source, request.progress, request.source_slice)

    def availability(self, source: FilesConfig) -> str:
        """The number of files, or `missing`."""
        try:
            return f"{len(find_files(source))} files"
        except MissingSourceError:
            return "missing"
