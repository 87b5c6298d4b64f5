"""Reading one file of documents: txt, md, html, jsonl (plain, gz or zst), json, csv or parquet, in constant memory.

A row of a table is a document (see `keylm.data.sources.rows`). A short text file is one document; a long one
is split at blank lines, into pieces of `SPLIT_BYTES` or a little more.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow
import pyarrow.parquet
import zstandard

from keylm.common.documents import Document
from keylm.common.errors import UserError
from keylm.common.files import refuse_lfs_pointer
from keylm.data.sources.compression import open_decompressed
from keylm.data.sources.progress import ReadProgress
from keylm.data.sources.rows import NoTextError, PositionedDocuments, Row, RowFormat, columns_to_read, documents_of_rows

SPLIT_BYTES = 16_384
"""A text file is split at the first blank line after so many bytes."""
_MAX_SPLIT_BYTES = 4 * SPLIT_BYTES
"""Without a blank line, it is split here."""

PAGE_WITHOUT_TEXT = "web page without text"

MAX_LINE_BYTES = 1 << 26
"""A line of jsonl is refused beyond this: a small compressed file may hold one that fills the memory."""
MAX_ROW_GROUP_BYTES = 1 << 28
MAX_COMPRESSION = 200
"""A row group of parquet, of which memory holds one, is refused if the first is what its columns take unpacked, and the
second times what they take in the file: text of any language compresses by less than 20."""
_MAX_DIGITS = 4_000
"""Python refuses to parse longer integers."""
_ROWS_PER_BATCH = 256
_CHUNK_CHARACTERS = 1 << 16
_BETWEEN_ITEMS = re.compile(r"[\s,]*")
"""What separates the items of an array; lines of JSON are only separated by white space."""
csv.field_size_limit(MAX_LINE_BYTES)


def read_file(path: Path, row_format: RowFormat, progress: ReadProgress) -> Iterator[Document]:
    """The documents of one file; `progress` advances by the bytes that they take on disk.

    Raises:
        UserError: the file cannot be read, or a row is not a document.
    """
    suffix = suffix_of(path)
    if suffix is None:
        raise UserError(f"the format of {path} is not supported; supported are {', '.join(SUFFIXES)}")
    progress.location = str(path)
    # Positions are those within the file; earlier files of the source have been counted already.
    start = progress.done
    try:
        if not path.is_file():
            # To open a named pipe that nobody writes to would never end.
            raise UserError(f"cannot read {path}: it is not a regular file")
        refuse_lfs_pointer(path)
        for document, position in _READERS[suffix](path, row_format, progress):
            progress.done = start + position
            yield document
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error


def suffix_of(path: Path) -> str | None:
    """The ending by which a file is read, whatever its case; None if its format is not supported."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)


def _read_text(path: Path, _: RowFormat, __: ReadProgress) -> PositionedDocuments:
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


def _read_html(path: Path, _: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    """The main text of a web page, without menus and the like (trafilatura; Barbaresi 2021)."""
    if not can_read_html():
        raise UserError(f"cannot read {path}: web pages need trafilatura, `pip install 'keylm[html]'`")
    from trafilatura import extract

    data = path.read_bytes()
    text = extract(data, include_comments=False)
    if text:
        yield Document(text=text), len(data)
    else:
        progress.skip(PAGE_WITHOUT_TEXT, str(path))


def can_read_html() -> bool:
    """Whether the package that web pages are read with is installed."""
    return find_spec("trafilatura") is not None


def _read_jsonl(path: Path, row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    return documents_of_rows(_jsonl_rows(path), row_format, progress)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = open_decompressed(file, path.suffix.lower())
        number = 1
        while line := lines.readline(MAX_LINE_BYTES):
            location = f"{path}, line {number}"
            if len(line) == MAX_LINE_BYTES:
                raise UserError(f"{location}: the line is longer than {MAX_LINE_BYTES >> 20} MiB; split it")
            if line.strip():
                # The position is that of the compressed file, whose size is the total.
                yield Row(_parse_json(line, location), location, file.tell())
            number += 1


def _parse_json(line: bytes, location: str) -> dict[str, Any]:
    try:
        # `sig` removes the byte order mark of Windows' editors.
        row = _DECODER.decode(line.decode("utf-8-sig", errors="surrogatepass"))
    except UnicodeDecodeError as error:
        raise UserError(f"{location}: this is not UTF-8 ({error.reason}); convert the file") from error
    except ValueError as error:
        raise UserError(f"{location}: this is not JSON ({error})") from error
    except RecursionError as error:
        raise UserError(f"{location}: the JSON is nested too deeply to be read") from error
    if not isinstance(row, dict):
        raise UserError(f'{location}: a line must be a JSON object, such as {{"text": "..."}}')
    return row


def _read_json(path: Path, row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    return documents_of_rows(_json_rows(path), row_format, progress)


def _json_rows(path: Path) -> Iterator[Row]:
    """The objects of an array, as Alpaca has it, or of JSON lines under this ending."""
    with path.open("rb") as file, io.TextIOWrapper(file, "utf-8-sig") as text:
        try:
            for number, values in enumerate(_json_items(text, path), start=1):
                location = f"{path}, item {number}"
                if not isinstance(values, dict):
                    raise NoTextError(f'{location}: an item must be a JSON object, such as {{"text": "..."}}')
                yield Row(values, location, file.tell())
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: this is not UTF-8 ({error.reason}); convert the file") from error


def _json_items(text: TextIO, path: Path) -> Iterator[Any]:
    """The items of an array, or values one after the other; memory holds one of them."""
    buffer, number = text.read(_CHUNK_CHARACTERS).lstrip(), 1
    closing = "]" if buffer.startswith("[") else ""
    start = len(closing)
    while True:
        start += len(_BETWEEN_ITEMS.match(buffer, start)[0])  # type: ignore[index]
        try:
            item, start = _DECODER.raw_decode(buffer, start)
        except (ValueError, RecursionError) as error:
            # The item goes on beyond the buffer, or the array ends.
            more = text.read(max(_CHUNK_CHARACTERS, len(buffer)))
            buffer, start = buffer[start:] + more, 0
            if not more and buffer.strip() == closing:
                return
            if not more or len(buffer) > MAX_LINE_BYTES:
                raise UserError(f"{path}, item {number}: this is not JSON ({error})") from error
            continue
        yield item
        number += 1


def _read_csv(path: Path, row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    return documents_of_rows(_csv_rows(path), row_format, progress)


def _csv_rows(path: Path) -> Iterator[Row]:
    """The rows of a table whose first line names the columns, separated by commas, semicolons or tabs."""
    with path.open("rb") as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        rows, number = csv.reader(text, delimiter=_delimiter(path), strict=True), 0
        try:
            columns = next(rows, [])
            for number, cells in enumerate(rows, start=1):
                location = f"{path}, row {number}"
                if len(cells) > len(columns):
                    raise UserError(f"{location}: there are {len(cells)} cells for {len(columns)} columns")
                if cells:
                    yield Row(dict(zip(columns, cells, strict=False)), location, file.tell())
        except csv.Error as error:
            raise UserError(f"{path}, after row {number}: this is not CSV ({error})") from error
        except UnicodeDecodeError as error:
            location = f"{path}, after row {number}"
            raise UserError(f"{location}: this is not UTF-8 ({error.reason}); convert the file") from error


def _delimiter(path: Path) -> str:
    """The separator of which the line of the columns has most: spreadsheets of many countries write semicolons."""
    with path.open("rb") as file:
        header = file.readline(MAX_LINE_BYTES)
    return max(",;\t", key=lambda separator: header.count(separator.encode()))


def _parse_int(digits: str) -> int | float:
    """A number that may stand in a column that nobody asked for: it must not stop the file, however long it is."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


_DECODER = json.JSONDecoder(parse_int=_parse_int)


def _read_parquet(path: Path, row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    return documents_of_rows(_parquet_rows(path, row_format), row_format, progress)


def _parquet_rows(path: Path, row_format: RowFormat) -> Iterator[Row]:
    """The rows, with only the needed columns; memory holds one row group."""
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = columns_to_read(row_format, file.schema_arrow.names, str(path))
        size, num_rows, number = path.stat().st_size, file.metadata.num_rows, 0
        # Over all row groups at once, `iter_batches` keeps what it has read to the end of the file.
        for group in range(file.num_row_groups):
            _refuse_bomb(file.metadata.row_group(group), path)
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[group], columns=columns):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}", size * number // num_rows)


def _refuse_bomb(group: pyarrow.parquet.RowGroupMetaData, path: Path) -> None:
    chunks = [group.column(index) for index in range(group.num_columns)]
    unpacked = sum(chunk.total_uncompressed_size for chunk in chunks)
    packed = sum(chunk.total_compressed_size for chunk in chunks)
    if unpacked > max(MAX_ROW_GROUP_BYTES, MAX_COMPRESSION * packed):
        raise UserError(
            f"{path}: {packed:,} bytes of it unpack to {unpacked:,} at once, which would fill the memory: write it "
            f"with smaller row groups"
        )


_READERS: dict[str, Callable[[Path, RowFormat, ReadProgress], PositionedDocuments]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".html": _read_html,
    ".htm": _read_html,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
SUFFIXES = tuple(_READERS)
"""Endings of the names of files that can be read."""
HTML_SUFFIXES = (".html", ".htm")
TEXT_SUFFIXES = tuple(suffix for suffix, reader in _READERS.items() if reader in (_read_text, _read_html))
"""Those of plain text; the others are rows."""
TABLE_SUFFIXES = (".json", ".csv", ".tsv")
"""Those under which people keep all sorts of things beside their texts."""
