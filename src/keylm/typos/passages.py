"""Pieces of documents, short enough to be typed in one go: a few sentences, or a few turns."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from random import Random

from keylm.common.documents import Document, Message

_MOST = 4
"""Pieces taken of one document: rather a little of many documents than all of few."""
_SHORTEST, _LONGEST = 24, 480
"""Characters of a passage."""
_MOST_TURNS, _LONGEST_TALK = 6, 1200
"""Messages of a conversation, and characters of all of them together."""
_LEAST_PROSE = 0.75
"""Least share of a passage's characters that are English letters or white space."""

_END = re.compile(r"(?<=[.!?])[\"'”’)\]]*\s+|\n+")
_NOT_PROSE = re.compile(r"[^A-Za-z\s]")


def pieces(document: Document, rng: Random) -> Iterator[Document]:
    """Up to four passages of a text, or the beginning of a conversation, each a document."""
    if document.messages is not None:
        turns = _turns(document.messages)
        if turns:
            yield Document(messages=turns)
        return
    found = list(passages(document.text or "", rng))
    for index in sorted(rng.sample(range(len(found)), min(_MOST, len(found)))):
        yield Document(text=found[index])


def passages(text: str, rng: Random) -> Iterator[str]:
    """Excerpts of one to a few whole sentences, one behind the other; what is not prose is left out."""
    start, length = 0, _length(rng)
    ends = [match.end() for match in _END.finditer(text)] + [len(text)]
    for end, following in zip(ends, [*ends[1:], len(text)], strict=True):
        if end - start < length and following - start <= _LONGEST and following > end and "\n\n" not in text[start:end]:
            continue
        passage = text[start:end].strip()
        if _SHORTEST <= len(passage) <= _LONGEST and _is_prose(passage):
            yield passage
        start, length = end, _length(rng)


def _length(rng: Random) -> int:
    """Characters that the next passage should have: short ones more often than long ones."""
    return int(_SHORTEST * math.pow(_LONGEST / _SHORTEST, rng.random()))


def _is_prose(passage: str) -> bool:
    return len(_NOT_PROSE.sub("", passage)) >= _LEAST_PROSE * len(passage)


def _turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """As many of the first messages as make a short conversation, from a user's to an assistant's; or none."""
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), len(messages))
    chosen: list[Message] = []
    room = _LONGEST_TALK
    for message in messages[first : first + _MOST_TURNS]:
        room -= len(message["content"])
        if room < 0:
            break
        chosen.append(message)
    while chosen and chosen[-1]["role"] != "assistant":
        chosen.pop()
    return tuple(chosen)
