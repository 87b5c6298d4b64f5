"""Reading one file of documents: txt, md, jsonl (plain, gz or zst) or parquet, in constant memory.

A row of jsonl or parquet is a document (see `keylm.data.sources.rows`). A short text file is one document; a long one
is split at blank lines, into pieces of `SPLIT_BYTES` or a little more.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.parquet
import zstandard

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.rows import PositionedDocuments, Row, RowFormat, columns_to_read, documents_of_rows

SPLIT_BYTES = 16_384
"""A text file is split at the first blank line after so many bytes."""
_MAX_SPLIT_BYTES = 4 * SPLIT_BYTES
"""Without a blank line, it is split here."""

_ROWS_PER_BATCH = 256
_BUFFER_BYTES = 1 << 20


def read_file(path: Path, row_format: RowFormat, progress: ReadProgress) -> Iterator[Document]:
    """The documents of one file; `progress` advances by the bytes that they take on disk.

    Raises:
        UserError: the file cannot be read, or a row is not a document.
    """
    reader = next((reader for suffix, reader in _READERS.items() if path.name.endswith(suffix)), None)
    if reader is None:
        raise UserError(f"the format of {path} is not supported; supported are {', '.join(SUFFIXES)}")
    # Positions are those within the file; earlier files of the source have been counted already.
    start = progress.done
    try:
        for document, position in reader(path, row_format):
            progress.done = start + position
            yield document
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error


def _read_text(path: Path, _: RowFormat) -> PositionedDocuments:
    with path.open("rb") as file:
        lines: list[str] = []
        size = 0
        for line in _text_lines(file, path):
            lines.append(line)
            size += len(line)
            # Paragraphs stay whole where they can: only a blank line ends a document before `_MAX_SPLIT_BYTES`.
            if size >= (_MAX_SPLIT_BYTES if line.strip() else SPLIT_BYTES):
                yield Document(text="".join(lines)), file.tell()
                lines, size = [], 0
        if lines:
            yield Document(text="".join(lines)), file.tell()


def _text_lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file; a line over `SPLIT_BYTES` comes in several pieces."""
    # Incremental, because a piece may end within a character; `sig` removes the byte order mark of Windows' editors.
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 1
    while True:
        line = file.readline(SPLIT_BYTES)
        try:
            text = decoder.decode(line, final=not line)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: this is not UTF-8 ({error.reason}); convert the file") from error
        if not line:
            return
        yield text
        number += line.endswith(b"\n")


def _read_jsonl(path: Path, row_format: RowFormat) -> PositionedDocuments:
    return documents_of_rows(_jsonl_rows(path), row_format)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        stream: Any = file
        if path.suffix == ".gz":
            stream = gzip.GzipFile(fileobj=file)
        elif path.suffix == ".zst":
            # Parallel compressors and appended files make several frames; by default reading ends after the first.
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        lines = io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                location = f"{path}, line {number}"
                # The position is that of the compressed file, whose size is the total.
                yield Row(_parse_json(line, location), location, file.tell())


def _parse_json(line: bytes, location: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{location}: this is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f'{location}: a line must be a JSON object, such as {{"text": "..."}}')
    return row


def _read_parquet(path: Path, row_format: RowFormat) -> PositionedDocuments:
    return documents_of_rows(_parquet_rows(path, row_format), row_format)


def _parquet_rows(path: Path, row_format: RowFormat) -> Iterator[Row]:
    """The rows, with only the needed columns; memory holds one row group."""
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = columns_to_read(row_format, file.schema_arrow.names, str(path))
        size, num_rows, number = path.stat().st_size, file.metadata.num_rows, 0
        # Over all row groups at once, `iter_batches` keeps what it has read to the end of the file.
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[group], columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}", size * number // num_rows)


_READERS: dict[str, Callable[[Path, RowFormat], PositionedDocuments]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
"""Endings of the names of files that can be read."""
