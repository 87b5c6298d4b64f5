"""Tokenization of many documents at a time: the tokenizer's threads work while the caller makes the next batch."""

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
_NUM_THREADS = 2
"""Batches in work at a time: while one waits for Python's lock, the tokenizer's own threads work on the other."""
# A bound on memory: reading can be much faster than tokenization.
_BATCHES_AHEAD = 3


@dataclass(frozen=True, slots=True)
class CleanedDocument:
    """A document after cleaning."""

    document: Document
    digest: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """A document as it is stored."""

    digest: int
    num_bytes: int
    """UTF-8 bytes of the text."""
    tokens: Array
    """Token ids, the last of them end-of-text: (num_tokens,) uint16."""
    loss_mask: Array
    """Which tokens are trained on: (num_tokens,) bool."""


def tokenize_documents(documents: Iterable[CleanedDocument], tokenizer: Tokenizer) -> Iterator[TokenizedDocument]:
    """Tokenize documents, in order, in batches of about `_BATCH_BYTES`."""
    for batch in _map_ahead(lambda batch: _tokenize_batch(batch, tokenizer), _batches(documents)):
        yield from batch


def _tokenize_batch(batch: list[CleanedDocument], tokenizer: Tokenizer) -> list[TokenizedDocument]:
    documents = [item.document for item in batch]
    texts = iter(tokenizer.encode_batch([document.text for document in documents if document.text is not None]))
    conversations = iter(
        encode_conversations(tokenizer, [document.messages for document in documents if document.messages is not None])
    )
    # Texts and conversations are encoded in one call each, and taken apart again in the order of the batch.
    tokenized = []
    for item in batch:
        if item.document.messages is None:
            ids = next(texts)
            loss_mask = np.ones(len(ids) + 1, dtype=np.bool_)
        else:
            ids, answer_spans = next(conversations)
            loss_mask = np.zeros(len(ids) + 1, dtype=np.bool_)
            for start, stop in answer_spans:
                loss_mask[start:stop] = True
        tokens = np.array([*ids, tokenizer.end_of_text], dtype=np.uint16)
        tokenized.append(TokenizedDocument(item.digest, item.num_bytes, tokens, loss_mask))
    return tokenized


def _batches(documents: Iterable[CleanedDocument]) -> Iterator[list[CleanedDocument]]:
    batch: list[CleanedDocument] = []
    num_bytes = 0
    for document in documents:
        batch.append(document)
        num_bytes += document.num_bytes
        if num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _map_ahead(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`function` of every item, in order, computed in threads while this one makes the next items."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > _BATCHES_AHEAD:
                    yield waiting.popleft().result()
        except Exception:
            # What was made before the failure is stored first, so that the next call continues there.
            yield from (future.result() for future in waiting)
            raise
        yield from (future.result() for future in waiting)
