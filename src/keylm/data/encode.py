"""From documents to token ids, many at a time: the tokenizer's threads encode while the caller makes the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from keylm import chat
from keylm.data.documents import Document
from keylm.data.store import Array
from keylm.tokenizer import Tokenizer

T = TypeVar("T")
R = TypeVar("R")

_BATCH_BYTES = 1_000_000
_BATCHES_AHEAD = 2


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that is learned from or validated on."""

    document: Document
    digest: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document as the store keeps it."""

    digest: int
    num_bytes: int
    """UTF-8 bytes of what was encoded."""
    tokens: Array
    """(n,) uint16, closed by the end-of-text token."""
    learned: Array
    """(n,) bool, which of the tokens are learned from."""


def encode(items: Iterable[Admitted], tokenizer: Tokenizer) -> Iterator[Encoded]:
    """The items' token ids, in order."""
    for encoded in _ahead(lambda batch: _encode_batch(batch, tokenizer), _batches(items)):
        yield from encoded


def _encode_batch(items: list[Admitted], tokenizer: Tokenizer) -> list[Encoded]:
    documents = [item.document for item in items]
    texts = iter(tokenizer.encode_batch([document.text for document in documents if document.text is not None]))
    talks = iter(chat.encode_batch(tokenizer, [talk.messages for talk in documents if talk.messages is not None]))
    encoded = []
    for item in items:
        ids, learned = (next(texts), None) if item.document.messages is None else next(talks)
        tokens = np.array([*ids, tokenizer.end_of_text], dtype=np.uint16)
        mask = np.ones(len(tokens), dtype=np.bool_) if learned is None else np.array([*learned, False])
        encoded.append(Encoded(item.digest, item.num_bytes, tokens, mask))
    return encoded


def _batches(items: Iterable[Admitted]) -> Iterator[list[Admitted]]:
    """The items in lists of about `_BATCH_BYTES`."""
    batch: list[Admitted] = []
    num_bytes = 0
    for item in items:
        batch.append(item)
        num_bytes += item.num_bytes
        if num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of every item, in order, computed by a thread while this one makes the next items.

    Where making them fails, what was made before comes first, then the failure.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            for item in items:
                waiting.append(thread.submit(function, item))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
        except Exception:
            yield from (future.result() for future in waiting)
            raise
        yield from (future.result() for future in waiting)
