"""Reading compressed files in constant memory, and noticing where they end too early."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

_BUFFER_BYTES = 1 << 20
_ZSTD_CHUNK_BYTES = 1 << 10
"""Compressed bytes at a time. A block of four bytes can hold 128 KiB, so that a chunk gives at most 32 MiB."""


def open_decompressed(file: BinaryIO, suffix: str) -> BinaryIO:
    """A buffered reader of what `file` holds: gzip for `.gz`, Zstandard for `.zst`, else the file itself.

    Raises:
        EOFError: on reading, where compressed data ends too early, which includes a file without a byte.
    """
    if suffix == ".gz":
        if not file.peek(1):  # type: ignore[attr-defined]
            # gzip itself takes nothing for an archive of nothing.
            raise EOFError("the compressed file is empty")
        return io.BufferedReader(gzip.GzipFile(fileobj=file), _BUFFER_BYTES)
    if suffix == ".zst":
        return io.BufferedReader(_Chunks(_zstd_chunks(file)), _BUFFER_BYTES)
    return file


def _zstd_chunks(file: BinaryIO) -> Iterator[bytes]:
    """The content of all frames: parallel compressors and appended files make several.

    zstandard's own reader takes the end of the file for the end of the frame, wherever that is.
    """
    frame = zstandard.ZstdDecompressor().decompressobj()
    while chunk := file.read(_ZSTD_CHUNK_BYTES):
        while chunk:
            if frame.eof:
                frame = zstandard.ZstdDecompressor().decompressobj()
            yield frame.decompress(chunk)
            chunk = frame.unused_data
    if not frame.eof:
        raise EOFError("the compressed file ends too early")


class _Chunks(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
