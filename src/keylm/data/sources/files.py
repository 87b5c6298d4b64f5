"""Documents from local files: txt, md, jsonl (plain, gz or zst) and parquet, one at a time, in constant memory.

A row of jsonl or parquet is a document: its text column, or its messages column where there is no text. A text file
is one document if it is short; a long one is cut at blank lines, after `CUT_BYTES` or a little more.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow
import pyarrow.parquet
import zstandard

from keylm.common.documents import Document
from keylm.common.errors import MissingSourceError, UserError
from keylm.data.sources.progress import FULL, ReadProgress, SourceSlice
from keylm.data.sources.rows import Positioned, Row, columns, documents
from keylm.recipe.sources import FilesConfig, HubConfig

CUT_BYTES = 16_384
"""A text file is cut at the first blank line after so many bytes."""
_LONGEST_CUT = 4 * CUT_BYTES
"""Without a blank line, it is cut here."""

_ROWS_PER_BATCH = 256
_BUFFER_BYTES = 1 << 20


def read_files(source: FilesConfig, reading: ReadProgress, part: SourceSlice = FULL) -> Iterator[Document]:
    """The documents of all files that `source.path` names, or of a part of them, in the order of their paths.

    Raises:
        MissingSourceError: nothing matches.
        UserError: a file cannot be read, or a row is not a document.
    """
    patterns = [source.path] if isinstance(source.path, str) else source.path
    paths = part.of(sorted({path for pattern in patterns for path in expand(pattern)}))
    reading.total = sum(path.stat().st_size for path in paths)
    for path in paths:
        yield from read_file(path, source, reading)


def read_file(path: Path, source: FilesConfig | HubConfig, reading: ReadProgress) -> Iterator[Document]:
    """The documents of one file; `reading` moves on by the bytes that they take on disk.

    Raises:
        UserError: the file cannot be read, or a row is not a document.
    """
    start = reading.done
    try:
        for document, position in _reader(path)(path, source):
            reading.done = start + position
            yield document
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error


def expand(pattern: str) -> list[Path]:
    """The files that a path, folder or glob pattern stands for; `~` and `$VARIABLES` are expanded.

    Raises:
        MissingSourceError: a variable is not set, or no file matches.
    """
    for name in re.findall(r"\$\{?(\w+)", pattern):
        if name not in os.environ:
            raise MissingSourceError(f"the path `{pattern}` needs the environment variable {name}, which is not set")
    path = Path(os.path.expandvars(pattern)).expanduser()
    if path.is_file():
        return [path]
    matches = [path] if path.is_dir() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    found = [file for match in matches for file in _files_in(match) if file.name.endswith(tuple(_READERS))]
    if not found:
        raise MissingSourceError(f"`{pattern}` matches no file that can be read ({', '.join(_READERS)})")
    return found


def _files_in(path: Path) -> Iterable[Path]:
    return filter(Path.is_file, path.rglob("*")) if path.is_dir() else [path]


def _reader(path: Path) -> Callable[[Path, FilesConfig | HubConfig], Positioned]:
    for suffix, reader in _READERS.items():
        if path.name.endswith(suffix):
            return reader
    raise UserError(f"{path} is of no kind that can be read ({', '.join(_READERS)})")


def _read_text(path: Path, _: FilesConfig | HubConfig) -> Positioned:
    with path.open("rb") as file:
        parts: list[str] = []
        size = 0
        for line in _lines_of_text(file, path):
            parts.append(line)
            size += len(line)
            if size >= (_LONGEST_CUT if line.strip() else CUT_BYTES):
                yield Document(text="".join(parts)), file.tell()
                parts, size = [], 0
        if parts:
            yield Document(text="".join(parts)), file.tell()


def _lines_of_text(file: BinaryIO, path: Path) -> Iterator[str]:
    """Lines, a very long one in pieces."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    number = 1
    while True:
        line = file.readline(CUT_BYTES)
        try:
            text = decoder.decode(line, final=not line)
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: this is not UTF-8 ({error.reason}); convert the file") from error
        if not line:
            return
        yield text
        number += line.endswith(b"\n")


def _read_jsonl(path: Path, source: FilesConfig | HubConfig) -> Positioned:
    return documents(_rows_of_jsonl(path), source)


def _rows_of_jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = io.BufferedReader(cast(io.RawIOBase, _decompressed(file, path)), _BUFFER_BYTES)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield Row(_parse(line, place), place, file.tell())


def _decompressed(file: BinaryIO, path: Path) -> Any:
    if path.suffix == ".gz":
        return gzip.GzipFile(fileobj=file)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return file


def _parse(line: bytes, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: this is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise UserError(f'{place}: a line must be a JSON object, such as {{"text": "..."}}')
    return row


def _read_parquet(path: Path, source: FilesConfig | HubConfig) -> Positioned:
    return documents(_rows_of_parquet(path, source), source)


def _rows_of_parquet(path: Path, source: FilesConfig | HubConfig) -> Iterator[Row]:
    """The rows, of which only the needed columns are read; memory holds one row group of them.

    Asked for all row groups at once, pyarrow's `iter_batches` keeps what it has read to the end of the file.
    """
    with pyarrow.parquet.ParquetFile(path) as file:
        names = columns(source, file.schema_arrow.names, str(path))
        size, num_rows, number = path.stat().st_size, file.metadata.num_rows, 0
        for group in range(file.num_row_groups):
            for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, row_groups=[group], columns=names):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(values, f"{path}, row {number}", size * number // num_rows)


_READERS: dict[str, Callable[[Path, FilesConfig | HubConfig], Positioned]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".parquet": _read_parquet,
}
