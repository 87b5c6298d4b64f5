"""Pieces of documents, short enough to be typed at once: a few sentences, or the first turns of a conversation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from random import Random

from keylm.common.documents import Document, Message

_MAX_PIECES = 4
"""Pieces per document: a little of many documents gives more variety than all of few."""
_MIN_LENGTH, _MAX_LENGTH = 24, 480
"""Characters of a passage."""
_MAX_MESSAGES, _MAX_CHAT_LENGTH = 6, 1200
"""Messages of a conversation, and characters of all of them together."""
# The error model leaves numbers, symbols and other scripts alone, so in such passages there would be little to correct.
_MIN_PROSE = 0.75
"""Smallest fraction of a passage's characters that must be English letters or white space."""

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|\n+")
_NOT_PROSE = re.compile(r"[^A-Za-z\s]")


def pieces(document: Document, rng: Random) -> Iterator[Document]:
    """Up to four random passages of a text, or the beginning of a conversation, each as a document."""
    if document.messages is not None:
        messages = _beginning(document.messages)
        if messages:
            yield Document(messages=messages)
        return
    candidates = list(passages(document.text or "", rng))
    for index in sorted(rng.sample(range(len(candidates)), min(_MAX_PIECES, len(candidates)))):
        yield Document(text=candidates[index])


def passages(text: str, rng: Random) -> Iterator[str]:
    """Split a text into passages of one to a few whole sentences; passages that are not prose are left out.

    A passage grows by sentences until it has the length drawn for it, the next sentence would make it too long, or a
    paragraph ends.
    """
    start, length = 0, _sample_length(rng)
    ends = [match.end() for match in _SENTENCE_END.finditer(text)] + [len(text)]
    for end, next_end in zip(ends, [*ends[1:], len(text)], strict=True):
        is_short = end - start < length and next_end - start <= _MAX_LENGTH
        if is_short and next_end > end and "\n\n" not in text[start:end]:
            continue
        passage = text[start:end].strip()
        is_prose = len(_NOT_PROSE.sub("", passage)) >= _MIN_PROSE * len(passage)
        if _MIN_LENGTH <= len(passage) <= _MAX_LENGTH and is_prose:
            yield passage
        start, length = end, _sample_length(rng)


def _sample_length(rng: Random) -> int:
    """Characters to aim for in the next passage, uniform on a logarithmic scale: most passages are short."""
    return int(_MIN_LENGTH * math.pow(_MAX_LENGTH / _MIN_LENGTH, rng.random()))


def _beginning(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The first messages that fit, from the first of the user to one of the assistant; empty if none do."""
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), len(messages))
    selected: list[Message] = []
    room = _MAX_CHAT_LENGTH
    for message in messages[first : first + _MAX_MESSAGES]:
        room -= len(message["content"])
        if room < 0:
            break
        selected.append(message)
    # A last request without its answer would teach nothing.
    while selected and selected[-1]["role"] != "assistant":
        selected.pop()
    return tuple(selected)
