"""Conversations that are longer than a training sequence."""

from __future__ import annotations

import numpy as np

from keylm.common.arrays import Array
from keylm.data.prepare.token_store import TokenStore


def document_spans(store: TokenStore) -> tuple[Array, Array]:
    """Where each document starts and stops, in tokens from the start of the store: two of (num_documents,) int64."""
    stops = store.document_ends
    return np.concatenate([np.zeros(1, np.int64), stops])[:-1], stops


def has_targets_within(store: TokenStore, length: int) -> Array:
    """Whether each document has a token to train on among its first `length` tokens: (num_documents,) bool."""
    starts, stops = document_spans(store)
    stops = np.minimum(stops, starts + length)
    num_targets = np.concatenate([[0], np.cumsum(store.loss_mask(0, store.num_tokens), dtype=np.int64)])
    # The first token of a document is never predicted, so it does not count.
    return np.asarray(num_targets[stops] > num_targets[np.minimum(starts + 1, stops)])


def count_long_conversations(store: TokenStore, length: int) -> tuple[int, int]:
    """How many conversations training leaves out, and how many more it cuts, with sequences of `length` tokens."""
    starts, stops = document_spans(store)
    is_trained_on = has_targets_within(store, length)
    return int(np.sum(~is_trained_on)), int(np.sum(is_trained_on & (stops - starts > length)))
