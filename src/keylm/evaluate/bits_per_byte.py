"""Bits per byte: how well a model predicts held-out text, in a unit that no tokenizer can flatter.

A model codes a token in as many bits as its negative log-likelihood, to base 2 (Shannon 1948). Their sum over all
tokens, divided by the UTF-8 bytes of the text, can be compared between vocabularies, and with a compressor.
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

_BATCH_TOKENS = 16_384
"""Tokens per forward pass."""
_BATCH_ROWS = 64


@dataclass(frozen=True)
class Excerpt:
    """The first whole documents of a store, as the model codes them and as a compressor does."""

    num_documents: int
    num_bytes: int
    """UTF-8 bytes of the documents' text; of a conversation, of what was said."""
    tokens: Array
    """Token ids, every document closed by end-of-text: (n,) uint16."""
    text: bytes
    """The same in UTF-8: control tokens left out, a zero byte between documents."""


@dataclass(frozen=True)
class Window:
    """Positions `start` to `stop` of a text: those from `scored` on count, those before are context."""

    start: int
    scored: int
    stop: int


def excerpt(store: TokenStore, tokenizer: Tokenizer, num_bytes: int) -> Excerpt:
    """As few whole documents from the store's beginning as have `num_bytes` bytes of text, or all of them."""
    totals = store.document_bytes.cumsum()
    num_documents = min(int(totals.searchsorted(num_bytes)) + 1, store.num_documents)
    ends = store.document_ends[:num_documents]
    tokens = store.tokens(0, int(ends[-1]))
    texts = [tokenizer.decode(part.tolist()).encode() for part in np.split(tokens, ends[:-1])]
    return Excerpt(num_documents, int(totals[num_documents - 1]), tokens, b"\0".join(texts))


def windows(num_tokens: int, length: int) -> Iterator[Window]:
    """Windows of `length` tokens, three quarters of it apart, that score each of `num_tokens` tokens once.

    Every token but those of the first window is predicted from at least a quarter of a window of context.
    """
    step = max(1, length * 3 // 4)
    start, scored = 0, 0
    while scored < num_tokens:
        stop = min(start + length, num_tokens)
        yield Window(start, scored, stop)
        start, scored = start + step, stop


def model_bits(
    model: KeyLM, tokens: Array, separator: int, length: int, advance: Callable[[int], None] = lambda _: None
) -> float:
    """Bits in which `model` codes `tokens` (n,), by windows of `length`; the first token follows a `separator`.

    `advance` is told of every batch of tokens that has been scored.
    """
    stream = torch.from_numpy(np.concatenate([[separator], tokens]).astype(np.int64))
    nats = 0.0
    cuts = list(windows(len(tokens), length))
    rows = max(1, _BATCH_TOKENS // length)
    for first in range(0, len(cuts), rows):
        chosen = cuts[first : first + rows]
        width = max(window.stop - window.start for window in chosen)
        inputs = torch.full((len(chosen), width), separator)
        targets = torch.full((len(chosen), width), IGNORE_INDEX)
        for row, window in enumerate(chosen):
            size = window.stop - window.start
            inputs[row, :size] = stream[window.start : window.stop]
            targets[row, window.scored - window.start : size] = stream[window.scored + 1 : window.stop + 1]
        nats += model.nll(inputs, targets).double().sum().item()
        advance(sum(window.stop - window.scored for window in chosen))
    return nats / math.log(2)


def continuation_bits(
    model: KeyLM,
    rows: Sequence[tuple[list[int], list[int]]],
    length: int,
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float64]:
    """Bits (n,) in which `model` codes the second list of token ids of each row behind the first.

    Of a row that is longer than `length`, the first tokens fall out. `advance` is told how many rows are done.
    """
    order = np.argsort([len(before) + len(after) for before, after in rows], kind="stable")
    nats = np.zeros(len(rows))
    for first in range(0, len(rows), _BATCH_ROWS):
        chosen = order[first : first + _BATCH_ROWS]
        nats[chosen] = _nats(model, [rows[index] for index in chosen], length)
        advance(len(chosen))
    return nats / math.log(2)


def _nats(model: KeyLM, rows: Sequence[tuple[list[int], list[int]]], length: int) -> NDArray[np.float64]:
    """Negative log-likelihood (rows,) of the second list of each row behind the first."""
    streams = [(before + after)[-length - 1 :] for before, after in rows]
    width = max(map(len, streams)) - 1
    inputs = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.full((len(rows), width), IGNORE_INDEX)
    for row, (stream, (_, after)) in enumerate(zip(streams, rows, strict=True)):
        size = len(stream) - 1
        inputs[row, :size] = torch.tensor(stream[:-1])
        targets[row, size - min(len(after), size) : size] = torch.tensor(after[-size:])
    total: NDArray[np.float64] = model.nll(inputs, targets).double().sum(dim=1).numpy()
    return total


def xz_bits(text: bytes) -> int:
    """Bits of `text` under `xz -9e`."""
    return 8 * len(lzma.compress(text, format=lzma.FORMAT_XZ, preset=9 | lzma.PRESET_EXTREME))


def compare(
    models: dict[str, KeyLM], part: Excerpt, separator: int, length: int, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Bits per byte of an excerpt under each model, by its name, and under `xz`; with the excerpt's size."""
    bits = {name: model_bits(model, part.tokens, separator, length, advance) for name, model in models.items()}
    bits["xz"] = xz_bits(part.text)
    return {
        "bytes": part.num_bytes,
        "documents": part.num_documents,
        "tokens": len(part.tokens),
        **{name: round(total / part.num_bytes, 4) for name, total in bits.items()},
    }
