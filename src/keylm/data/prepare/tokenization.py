"""From documents to token ids, many at a time: the tokenizer's threads encode while the caller makes the next ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from keylm.common.arrays import Array
from keylm.common.documents import Document
from keylm.tokenizer.messages import encode_conversations
from keylm.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")
R = TypeVar("R")

_BATCH_BYTES = 2_000_000
_CALLERS = 2
"""Batches that are encoded at a time: while one waits for Python, the tokenizer's threads work on the other."""
_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class CleanedDocument:
    """A document that is learned from or validated on."""

    document: Document
    digest: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A document as the store keeps it."""

    digest: int
    num_bytes: int
    """UTF-8 bytes of what was encoded."""
    tokens: Array
    """(n,) uint16, closed by the end-of-text token."""
    learned: Array
    """(n,) bool, which of the tokens are learned from."""


def tokenize_documents(items: Iterable[CleanedDocument], tokenizer: Tokenizer) -> Iterator[TokenizedDocument]:
    """The items' token ids, in order."""
    for encoded in _ahead(lambda batch: _encode_batch(batch, tokenizer), _batches(items)):
        yield from encoded


def _encode_batch(items: list[CleanedDocument], tokenizer: Tokenizer) -> list[TokenizedDocument]:
    documents = [item.document for item in items]
    texts = iter(tokenizer.encode_batch([document.text for document in documents if document.text is not None]))
    talks = iter(encode_conversations(tokenizer, [talk.messages for talk in documents if talk.messages is not None]))
    encoded = []
    for item in items:
        ids, answers = (next(texts), None) if item.document.messages is None else next(talks)
        ids.append(tokenizer.end_of_text)
        encoded.append(
            TokenizedDocument(item.digest, item.num_bytes, np.array(ids, dtype=np.uint16), _mask(len(ids), answers))
        )
    return encoded


def _mask(num_tokens: int, answers: list[tuple[int, int]] | None) -> Array:
    """What is learned of so many tokens: everything in plain text, the answers in a conversation."""
    if answers is None:
        return np.ones(num_tokens, dtype=np.bool_)
    mask = np.zeros(num_tokens, dtype=np.bool_)
    for start, stop in answers:
        mask[start:stop] = True
    return mask


def _batches(items: Iterable[CleanedDocument]) -> Iterator[list[CleanedDocument]]:
    """The items in lists of about `_BATCH_BYTES`."""
    batch: list[CleanedDocument] = []
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
    """`function` of every item, in order, computed by threads while this one makes the next items.

    Where making them fails, what was made before comes first, then the failure.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(_CALLERS) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
        except Exception:
            yield from (future.result() for future in waiting)
            raise
        yield from (future.result() for future in waiting)
