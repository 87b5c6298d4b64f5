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

from keylm.chat import ROLES, Message
from keylm.data.documents import Document
from keylm.data.reading import Reading
from keylm.errors import UserError
from keylm.recipe import Files, Hub

CUT_BYTES = 16_384
"""A text file is cut at the first blank line after so many bytes."""
_LONGEST_CUT = 4 * CUT_BYTES
"""Without a blank line, it is cut here."""

_ROWS_PER_BATCH = 256
_BUFFER_BYTES = 1 << 20

Positioned = Iterator[tuple[Document, int]]
"""Documents, each with the number of the file's bytes that have been read up to its end."""


def read(source: Files, reading: Reading) -> Iterator[Document]:
    """The documents of all files that `source.path` names, in the order of their paths.

    Raises:
        UserError: nothing matches, a file cannot be read, or a row is not a document.
    """
    patterns = [source.path] if isinstance(source.path, str) else source.path
    paths = sorted({path for pattern in patterns for path in expand(pattern)})
    reading.total = sum(path.stat().st_size for path in paths)
    for path in paths:
        yield from read_file(path, source, reading)


def read_file(path: Path, columns: Files | Hub, reading: Reading) -> Iterator[Document]:
    """The documents of one file; `reading` moves on by the bytes that they take on disk.

    Raises:
        UserError: the file cannot be read, or a row is not a document.
    """
    start = reading.done
    try:
        for document, position in _reader(path)(path, columns):
            reading.done = start + position
            yield document
    except (OSError, EOFError, zlib.error, zstandard.ZstdError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"cannot read {path}: {reason}") from error


def expand(pattern: str) -> list[Path]:
    """The files that a path, folder or glob pattern stands for; `~` and `$VARIABLES` are expanded.

    Raises:
        UserError: a variable is not set, or no file matches.
    """
    for name in re.findall(r"\$\{?(\w+)", pattern):
        if name not in os.environ:
            raise UserError(f"the path `{pattern}` needs the environment variable {name}, which is not set")
    path = Path(os.path.expandvars(pattern)).expanduser()
    if path.is_file():
        return [path]
    matches = [path] if path.is_dir() else Path(path.anchor).glob(str(path.relative_to(path.anchor)))
    found = [file for match in matches for file in _files_in(match) if file.name.endswith(tuple(_READERS))]
    if not found:
        raise UserError(f"`{pattern}` matches no file that can be read ({', '.join(_READERS)})")
    return found


def _files_in(path: Path) -> Iterable[Path]:
    return filter(Path.is_file, path.rglob("*")) if path.is_dir() else [path]


def _reader(path: Path) -> Callable[[Path, Files | Hub], Positioned]:
    for suffix, reader in _READERS.items():
        if path.name.endswith(suffix):
            return reader
    raise UserError(f"{path} is of no kind that can be read ({', '.join(_READERS)})")


def _read_text(path: Path, _: Files | Hub) -> Positioned:
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


def _read_jsonl(path: Path, columns: Files | Hub) -> Positioned:
    with path.open("rb") as file:
        lines = io.BufferedReader(cast(io.RawIOBase, _decompressed(file, path)), _BUFFER_BYTES)
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}, line {number}"
                yield _document(_parse(line, place), columns, place), file.tell()


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


def _read_parquet(path: Path, columns: Files | Hub) -> Positioned:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = [name for name in file.schema_arrow.names if name in (columns.text_column, columns.messages_column)]
        if not names:
            raise _missing_column(str(path), file.schema_arrow.names, columns)
        size, num_rows, number = path.stat().st_size, file.metadata.num_rows, 0
        for batch in file.iter_batches(batch_size=_ROWS_PER_BATCH, columns=names):
            for row in batch.to_pylist():
                number += 1
                yield _document(row, columns, f"{path}, row {number}"), size * number // num_rows


def _document(row: dict[str, Any], columns: Files | Hub, place: str) -> Document:
    text, messages = row.get(columns.text_column), row.get(columns.messages_column)
    if isinstance(text, str):
        return Document(text=text)
    if text is not None:
        raise UserError(f"{place}: `{columns.text_column}` is not text but {type(text).__name__}")
    if isinstance(messages, list):
        turns = enumerate(messages, start=1)
        return Document(messages=tuple(_message(turn, f"{place}, message {number}") for number, turn in turns))
    if messages is not None:
        raise UserError(f"{place}: `{columns.messages_column}` is not a list of messages but {type(messages).__name__}")
    if columns.messages_column in row:
        return Document(messages=())
    if columns.text_column in row:
        return Document(text="")
    raise _missing_column(place, list(row), columns)


def _message(turn: Any, place: str) -> Message:
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise UserError(f"{place}: a message must have a `role` and a `content` of text")
    if turn.get("role") not in ROLES:
        raise UserError(f"{place}: the role {turn.get('role')!r} is not one of {', '.join(ROLES)}")
    return {"role": turn["role"], "content": turn["content"]}


def _missing_column(place: str, names: list[str], columns: Files | Hub) -> UserError:
    return UserError(
        f"{place}: there is no `{columns.text_column}` and no `{columns.messages_column}` among "
        f"{', '.join(names) or 'its columns'}; name the right one as text_column or messages_column in the recipe"
    )


_READERS: dict[str, Callable[[Path, Files | Hub], Positioned]] = {
    ".txt": _read_text,
    ".md": _read_text,
    ".jsonl": _read_jsonl,
    ".jsonl.gz": _read_jsonl,
    ".jsonl.zst": _read_jsonl,
    ".parquet": _read_parquet,
}
