"""Bits per byte: how well a model predicts held-out text, comparable between tokenizers and with a compressor.

By arithmetic coding, a model encodes a token in -log2 p(token) bits (Shannon 1948). Their sum over all tokens, divided
by the UTF-8 bytes of the text, does not depend on how the text is split into tokens.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from keylm.common.arrays import IGNORE_INDEX, Array
from keylm.data.prepare.token_store import TokenStore
from keylm.model.transformer import KeyLM
from keylm.tokenizer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BATCH_TOKENS = 4096
"""Tokens per forward pass, padding included. What the layers pass on then stays in the processor's cache: 16,384 take
up to twice as long."""


@dataclass(frozen=True)
class Excerpt:
    """The first whole documents of a store, for a model and for a compressor."""

    num_documents: int
    num_bytes: int
    """UTF-8 bytes of the documents' text; for conversations, of the messages' contents."""
    tokens: Array
    """Token ids, each document followed by end-of-text: (n,) uint16."""
    text: bytes
    """The same in UTF-8, without control tokens and with a zero byte between documents."""


@dataclass(frozen=True)
class Window:
    """Positions `start` to `stop` of a token sequence. Those before `scored` are context only."""

    start: int
    scored: int
    stop: int


def excerpt(store: TokenStore, tokenizer: Tokenizer, num_bytes: int) -> Excerpt:
    """The store's first documents, as few as hold `num_bytes` bytes of text, or all of them."""
    totals = store.document_bytes.cumsum()
    num_documents = min(int(totals.searchsorted(num_bytes)) + 1, store.num_documents)
    ends = store.document_ends[:num_documents]
    tokens = store.tokens(0, int(ends[-1]))
    texts = [tokenizer.decode(document.tolist()).encode() for document in np.split(tokens, ends[:-1])]
    return Excerpt(num_documents, int(totals[num_documents - 1]), tokens, b"\0".join(texts))


def windows(num_tokens: int, length: int) -> Iterator[Window]:
    """Overlapping windows of `length` tokens, a stride of three quarters apart, that score every token once.

    Every token outside the first window is predicted from at least a quarter of a window of context. With length 8:

        0 1 2 3 4 5 6 7            all scored
                    6 7 8 9 ...    6 and 7 are context, 8 to 13 are scored
    """
    stride = max(1, length * 3 // 4)
    start, scored = 0, 0
    while scored < num_tokens:
        stop = min(start + length, num_tokens)
        yield Window(start, scored, stop)
        start, scored = start + stride, stop


def model_bits(
    model: KeyLM, tokens: Array, separator: int, length: int, advance: Callable[[int], None] = lambda _: None
) -> float:
    """Bits in which a model encodes a token sequence, in windows of `length` tokens.

    Args:
        model: The model.
        tokens: Token ids, (n,).
        separator: The token that precedes the first one: end-of-text.
        length: Tokens per window.
        advance: Called with the number of tokens scored, after every batch.
    """
    stream = torch.from_numpy(np.concatenate([[separator], tokens]).astype(np.int64))
    nats = 0.0
    cuts = list(windows(len(tokens), length))
    batch_size = max(1, _BATCH_TOKENS // length)
    for first in range(0, len(cuts), batch_size):
        batch = cuts[first : first + batch_size]
        width = max(window.stop - window.start for window in batch)
        inputs = torch.full((len(batch), width), separator)
        targets = torch.full((len(batch), width), IGNORE_INDEX)
        for row, window in enumerate(batch):
            size = window.stop - window.start
            inputs[row, :size] = stream[window.start : window.stop]
            # The separator shifts the stream by one: stream[p] is the input that predicts token p, at stream[p + 1].
            targets[row, window.scored - window.start : size] = stream[window.scored + 1 : window.stop + 1]
        # Summed in float64: a float32 sum of many thousand tokens loses digits.
        nats += model.nll(inputs.to(model.device), targets.to(model.device)).double().sum().item()
        advance(sum(window.stop - window.scored for window in batch))
    return nats / math.log(2)


def continuation_bits(
    model: KeyLM,
    rows: Sequence[tuple[list[int], list[int]]],
    length: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Bits in which a model encodes continuations, each after its context.

    Args:
        model: The model.
        rows: Token ids of a context and of its continuation.
        length: Tokens that the model sees at most; a longer row loses its first ones.
        advance: Called with the number of rows scored, after every batch.

    Returns:
        Bits of each continuation, (rows,).
    """
    # Sorted by length, so that the rows of a batch need little padding; the first is its longest.
    lengths = np.array([min(len(context) + len(continuation), length) for context, continuation in rows])
    order = np.argsort(-lengths, kind="stable")
    nats = np.zeros(len(rows))
    while len(order):
        batch, order = np.split(order, [max(1, _BATCH_TOKENS // lengths[order[0]])])
        nats[batch] = _continuation_nats(model, [rows[index] for index in batch], length)
        advance(len(batch))
    return nats / math.log(2)


def _continuation_nats(model: KeyLM, rows: Sequence[tuple[list[int], list[int]]], length: int) -> NDArray[np.float64]:
    """Negative log-likelihoods of the continuations of one batch, (rows,)."""
    # One token more than the model sees: the last one of a stream is only predicted.
    streams = [(context + continuation)[-length - 1 :] for context, continuation in rows]
    width = max(map(len, streams)) - 1
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORE_INDEX)
    for row, (stream, (_, continuation)) in enumerate(zip(streams, rows, strict=True)):
        size = len(stream) - 1
        inputs[row, :size] = torch.tensor(stream[:-1])
        targets[row, size - min(len(continuation), size) : size] = torch.tensor(continuation[-size:])
    nll = model.nll(inputs.to(model.device), targets.to(model.device))
    total: NDArray[np.float64] = nll.double().sum(dim=1).cpu().numpy()
    return total


def plain_bits_per_byte(
    model: KeyLM, tokenizer: Tokenizer, texts: Sequence[str], advance: Callable[[int], None] = lambda _: None
) -> float:
    """Bits per byte of texts, each scored on its own after an end-of-text token; 0.0 if all are empty."""
    # Training separates documents by this token, so after it a model expects any text.
    rows = [([tokenizer.end_of_text], tokenizer.encode(text)) for text in texts if text]
    num_bytes = sum(len(text.encode()) for text in texts)
    bits = continuation_bits(model, rows, model.config.max_position_embeddings, advance)
    return float(bits.sum()) / num_bytes if num_bytes else 0.0


def xz_bits(text: bytes) -> int:
    """Bits of the text compressed by `xz -9e`."""
    return 8 * len(lzma.compress(text, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))


def compare_bits_per_byte(
    models: dict[str, KeyLM], part: Excerpt, separator: int, length: int, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Size of an excerpt, and its bits per byte under each model, by the model's name, and under `xz`."""
    bits = {name: model_bits(model, part.tokens, separator, length, advance) for name, model in models.items()}
    bits["xz"] = xz_bits(part.text)
    return {
        "bytes": part.num_bytes,
        "documents": part.num_documents,
        "tokens": len(part.tokens),
        **{name: round(total / part.num_bytes, 4) for name, total in bits.items()},
    }
