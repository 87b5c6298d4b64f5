"""Typo robustness: what a model loses when the text before it, or the request, is mistyped.

Only the words before are mistyped; what is scored is the same clean text, or the same instructions, at every rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from keylm.common.documents import Document
from keylm.data.prepare.token_store import TokenStore
from keylm.data.sources.parents import interleave
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.evaluate.instructions import score
from keylm.inference.answers import ChatModel
from keylm.instructions.mistyped import mistyped_task
from keylm.instructions.splits import held_out
from keylm.instructions.task import Task
from keylm.typos.error_model import mistype
from keylm.typos.generate import cut_near
from keylm.typos.passages import pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from keylm.model.transformer import KeyLM
    from keylm.tokenizer.tokenizer import Tokenizer

RATES = (0.0, 0.02, 0.05, 0.1)
"""Shares of characters mistyped."""
_SHORTEST = 120
"""Characters of a passage: a shorter one has too little before its middle."""


@dataclass(frozen=True)
class Passage:
    """A held-out passage, cut before a word near its middle."""

    beginning: str
    continuation: str

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of what is scored."""
        return len(self.continuation.encode())


@dataclass(frozen=True)
class BpbIncrease:
    """Bits per byte of the continuations, and how much more than behind clean beginnings, with its standard error."""

    bits_per_byte: float
    rise: float
    standard_error: float


def passages(stores: Sequence[TokenStore], tokenizer: Tokenizer, num: int, seed: int) -> list[Passage]:
    """Passages of plain text from the stores in turn: `num` of them, or as many as there are."""
    streams = [_passages(store, tokenizer, seed) for store in stores]
    return [passage for _, passage in zip(range(num), interleave(streams), strict=False)]


def _passages(store: TokenStore, tokenizer: Tokenizer, seed: int) -> Iterator[Passage]:
    start = 0
    for end in store.document_ends.tolist():
        tokens, start = store.tokens(start, end), end
        if (tokens == tokenizer.turn_start).any():
            continue
        document = Document(text=tokenizer.decode(tokens.tolist()))
        for piece in pieces(document, Random(f"passages:{seed}:{document.digest}")):
            text = piece.text or ""
            middle = cut_near(text, 0.5)
            if len(text) >= _SHORTEST and middle < len(text):
                yield Passage(text[:middle], text[middle:])


def bpb_increases(
    model: KeyLM, tokenizer: Tokenizer, chosen: Sequence[Passage], length: int, seed: int
) -> dict[float, BpbIncrease]:
    """What each of `RATES` costs, in at most `length` tokens: of a longer passage, the first ones fall out."""
    sizes = np.array([passage.num_bytes for passage in chosen])
    bits = {rate: passage_bits(model, tokenizer, _hurried(chosen, rate, seed), length) for rate in RATES}
    return {rate: _rise(bits[rate], bits[0.0], sizes) for rate in RATES}


def _hurried(chosen: Sequence[Passage], rate: float, seed: int) -> list[Passage]:
    return [
        replace(passage, beginning=mistype(passage.beginning, rate, Random(f"passage:{seed}:{rate}:{index}")))
        for index, passage in enumerate(chosen)
    ]


def _rise(bits: NDArray[np.float64], clean: NDArray[np.float64], sizes: NDArray[np.int64]) -> BpbIncrease:
    """A ratio of sums over passages, and the standard error of such a ratio (Cochran 1977, section 2.11)."""
    rise = (bits - clean).sum() / sizes.sum()
    spread = (bits - clean - rise * sizes).std(ddof=1) if len(sizes) > 1 else math.nan
    error = spread / math.sqrt(len(sizes)) / sizes.mean()
    return BpbIncrease(float(bits.sum() / sizes.sum()), float(rise), float(error))


def passage_bits(model: KeyLM, tokenizer: Tokenizer, chosen: Sequence[Passage], length: int) -> NDArray[np.float64]:
    """Bits (n,) in which `model` codes each passage's continuation behind its beginning.

    The two are encoded apart, so that the continuation's tokens are the same whatever the beginning is.
    """
    rows = [
        ([tokenizer.end_of_text, *tokenizer.encode(passage.beginning)], tokenizer.encode(passage.continuation)[:length])
        for passage in chosen
    ]
    return continuation_bits(model, rows, length)


def requests(num: int, seed: int) -> list[Task]:
    """The first `num` held-out tasks that ask about a topic under constraints."""
    tasks = held_out(2 * num + 2, seed)
    return [task for task in tasks if task.topic is not None and task.checks][:num]


def followed(
    speaker: ChatModel, tasks: Sequence[Task], max_new_tokens: int, seed: int
) -> dict[float, dict[str, float]]:
    """At each of `RATES`, the shares of the instructions that are followed and of the answers that name their topic."""
    asked = [
        mistyped_task(task, rate, Random(f"request:{seed}:{rate}:{index}"))
        for rate in RATES
        for index, task in enumerate(tasks)
    ]
    said = speaker.answer([task.messages for task in asked], max_new_tokens)
    answers = [answer.text for answer in said]
    shares = {}
    for number, rate in enumerate(RATES):
        scored = score(answers[number * len(tasks) : (number + 1) * len(tasks)], tasks)
        shares[rate] = {"followed": scored.followed.share, "on_topic": scored.on_topic.share}
    return shares


def measure(
    models: Mapping[str, KeyLM],
    speak: Callable[[str], ChatModel],
    tokenizer: Tokenizer,
    chosen: Sequence[Passage],
    tasks: Sequence[Task],
    max_new_tokens: int,
    length: int,
    seed: int,
) -> dict[str, Any]:
    """Both, for each model by its name and at each of `RATES`; what there is nothing to measure on is left out.

    `speak` gives the speaker of that name.
    """
    rows: dict[str, dict[str, dict[str, float]]] = {name: {percent(rate): {} for rate in RATES} for name in models}
    for name, model in models.items():
        if chosen:
            for rate, rise in bpb_increases(model, tokenizer, chosen, length, seed).items():
                rows[name][percent(rate)] |= {key: round(value, 4) for key, value in vars(rise).items()}
        if tasks:
            for rate, shares in followed(speak(name), tasks, max_new_tokens, seed).items():
                rows[name][percent(rate)] |= {key: round(value, 4) for key, value in shares.items()}
    counts = {
        "passages": len(chosen),
        "bytes": sum(passage.num_bytes for passage in chosen),
        "prompts": len(tasks),
        "instructions": sum(len(task.checks) for task in tasks),
    }
    return {**counts, **rows}


def percent(rate: float) -> str:
    """`0.02` as `2%`."""
    return f"{rate:.0%}"
