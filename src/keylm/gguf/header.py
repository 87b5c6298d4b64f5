"""The metadata of a GGUF that chatting needs: sampling defaults, context length and tokenizer."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, models

from keylm.common.errors import UserError
from keylm.tokenizer.tokenizer import CONTROL_TOKENS, Tokenizer, byte_level_backend

# The types of metadata values, by GGUF's numbers (ggml/docs/gguf.md): scalars as `struct` knows them.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING = 8
_ARRAY = 9

EXAMPLES_KEY = "keylm.examples"
"""Requests that the chat page suggests: a key of ours, which other programs ignore."""


@dataclass(frozen=True)
class GGUFHeader:
    """The metadata of a GGUF that chatting needs."""

    name: str
    """Display name of the model."""
    context_length: int
    """Tokens that fit into the context."""
    temperature: float
    """Default sampling temperature."""
    repetition_penalty: float
    """Default repetition penalty."""
    examples: list[str]
    """Requests that the chat page suggests."""
    tokenizer: Tokenizer


def read_gguf_header(path: Path) -> GGUFHeader:
    """Read the metadata and the tokenizer of a GGUF that `write_gguf` wrote.

    Raises:
        UserError: The file is not a GGUF, is damaged, or was not written by KeyLM.
    """
    try:
        values = read_gguf_metadata(path)
    except (OSError, ValueError, LookupError, struct.error) as error:
        raise UserError(f"{path} is not a GGUF file, or is damaged: {error}") from error
    try:
        return GGUFHeader(
            name=values["general.name"],
            context_length=values[f"{values['general.architecture']}.context_length"],
            temperature=values["general.sampling.temp"],
            repetition_penalty=values["general.sampling.penalty_repeat"],
            examples=values.get(EXAMPLES_KEY, []),
            tokenizer=_make_tokenizer(values),
        )
    except KeyError as error:
        raise UserError(f"{path} was not written by keylm: its metadata lacks {error}") from error


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """Read all metadata of a GGUF: numbers, booleans, strings and lists of them, by key.

    The `gguf` package reads them too, but takes most of a second for the strings of a vocabulary, and numpy with it.

    Raises:
        OSError, ValueError, LookupError, struct.error: The file cannot be read, is not a GGUF, or is damaged.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        reader = _ValueReader(data, position=4)
        _version, _num_tensors, num_values = reader.numbers("IQQ")
        return {reader.string(): reader.value(*reader.numbers("I")) for _ in range(num_values)}


class _ValueReader:
    """Reads one value of a GGUF's metadata after the other."""

    def __init__(self, data: mmap.mmap, position: int) -> None:
        self.data = data
        self.position = position

    def numbers(self, layout: str) -> tuple[Any, ...]:
        """Read numbers in the notation of `struct`."""
        numbers = struct.unpack_from("<" + layout, self.data, self.position)
        self.position += struct.calcsize("<" + layout)
        return numbers

    def string(self) -> str:
        """Read a string: its number of bytes, and UTF-8."""
        (num_bytes,) = self.numbers("Q")
        start, self.position = self.position, self.position + num_bytes
        if self.position > len(self.data):
            raise ValueError("it ends in the middle of its metadata")
        return self.data[start : self.position].decode()

    def value(self, value_type: int) -> Any:
        """Read a value of one of GGUF's types."""
        if value_type == _STRING:
            return self.string()
        if value_type != _ARRAY:
            return self.numbers(_SCALARS[value_type])[0]
        item_type, count = self.numbers("IQ")
        if item_type == _STRING:
            return [self.string() for _ in range(count)]
        return list(self.numbers(f"{count}{_SCALARS[item_type]}"))


def _make_tokenizer(values: dict[str, Any]) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(values["tokenizer.ggml.tokens"])}
    pairs = [tuple(merge.split(" ")) for merge in values["tokenizer.ggml.merges"]]
    backend = byte_level_backend(models.BPE(vocabulary, pairs), values["tokenizer.ggml.pre"])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS])
    return Tokenizer(backend)
