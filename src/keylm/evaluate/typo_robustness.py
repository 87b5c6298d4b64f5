"""Typo robustness: what a model loses when the text before a continuation, or a request, contains typos.

Only the context gets typos. What is scored, a continuation or the same instructions, is the same at every rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from keylm.common.documents import Document
from keylm.data.prepare.token_store import TokenStore
from keylm.data.sources.parents import interleave
from keylm.evaluate.bits_per_byte import continuation_bits
from keylm.evaluate.instruction_following import score_answers
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
"""Shares of characters with a typo."""
_MIN_PASSAGE_CHARS = 120
"""A shorter passage has too little text before its middle."""


@dataclass(frozen=True)
class Passage:
    """A held-out passage, split before a word near its middle."""

    beginning: str
    continuation: str

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the continuation."""
        return len(self.continuation.encode())


@dataclass(frozen=True)
class BpbIncrease:
    """Bits per byte of continuations, and the increase over clean beginnings with its standard error."""

    bits_per_byte: float
    increase: float
    standard_error: float


def measure_typo_robustness(
    models: Mapping[str, KeyLM],
    load_chat_model: Callable[[str], ChatModel],
    tokenizer: Tokenizer,
    passages: Sequence[Passage],
    tasks: Sequence[Task],
    *,
    max_new_tokens: int,
    length: int,
    seed: int,
) -> dict[str, Any]:
    """Measure both continuations and instructions, for each model and at each of `RATES`.

    Args:
        models: Language models by name (the stage that trained them).
        load_chat_model: Loads the chat model of that name.
        tokenizer: The models' tokenizer.
        passages: Passages to continue; without any, the keys of `BpbIncrease` are left out.
        tasks: Requests to answer; without any, the accuracies are left out.
        max_new_tokens: Token limit of an answer.
        length: Tokens of a passage that a model sees at most.
        seed: Seed of the typos.
    """
    results: dict[str, Any] = {
        "passages": len(passages),
        "bytes": sum(passage.num_bytes for passage in passages),
        "prompts": len(tasks),
        "instructions": sum(len(task.checks) for task in tasks),
    }
    for name, model in models.items():
        increases = bpb_increases(model, tokenizer, passages, length, seed) if passages else {}
        accuracies = accuracies_with_typos(load_chat_model(name), tasks, max_new_tokens, seed) if tasks else {}
        results[name] = {}
        for rate in RATES:
            values = {**(asdict(increases[rate]) if passages else {}), **accuracies.get(rate, {})}
            results[name][f"{rate:.0%}"] = {key: round(value, 4) for key, value in values.items()}
    return results


def sample_passages(stores: Sequence[TokenStore], tokenizer: Tokenizer, num: int, seed: int) -> list[Passage]:
    """Passages of plain text, alternating between the stores: `num` of them, or as many as there are."""
    streams = [_passages(store, tokenizer, seed) for store in stores]
    return [passage for _, passage in zip(range(num), interleave(streams), strict=False)]


def _passages(store: TokenStore, tokenizer: Tokenizer, seed: int) -> Iterator[Passage]:
    start = 0
    for end in store.document_ends.tolist():
        tokens, start = store.tokens(start, end), end
        is_conversation = (tokens == tokenizer.turn_start).any()
        if is_conversation:
            continue
        # The seed depends on the text alone, so a passage gets the same cut in every run and order.
        document = Document(text=tokenizer.decode(tokens.tolist()))
        for piece in pieces(document, Random(f"passages:{seed}:{document.digest}")):
            text = piece.text or ""
            middle = cut_near(text, 0.5)
            if len(text) >= _MIN_PASSAGE_CHARS and middle < len(text):
                yield Passage(text[:middle], text[middle:])


def bpb_increases(
    model: KeyLM, tokenizer: Tokenizer, passages: Sequence[Passage], length: int, seed: int
) -> dict[float, BpbIncrease]:
    """Bits per byte of the continuations at each of `RATES`; a passage of more than `length` tokens loses its first."""
    num_bytes = np.array([passage.num_bytes for passage in passages])
    bits = {}
    for rate in RATES:
        with_typos = [
            replace(passage, beginning=mistype(passage.beginning, rate, Random(f"passage:{seed}:{rate}:{index}")))
            for index, passage in enumerate(passages)
        ]
        bits[rate] = passage_bits(model, tokenizer, with_typos, length)
    return {rate: _bpb_increase(bits[rate], bits[0.0], num_bytes) for rate in RATES}


def _bpb_increase(
    bits: NDArray[np.float64], clean_bits: NDArray[np.float64], num_bytes: NDArray[np.int64]
) -> BpbIncrease:
    """Increase as a ratio of sums over passages, with the standard error of such a ratio (Cochran 1977, section 2.11).

    All arguments have one number per passage, (passages,).
    """
    increase = (bits - clean_bits).sum() / num_bytes.sum()
    residual_std = (bits - clean_bits - increase * num_bytes).std(ddof=1) if len(num_bytes) > 1 else math.nan
    error = residual_std / math.sqrt(len(num_bytes)) / num_bytes.mean()
    return BpbIncrease(float(bits.sum() / num_bytes.sum()), float(increase), float(error))


def passage_bits(model: KeyLM, tokenizer: Tokenizer, passages: Sequence[Passage], length: int) -> NDArray[np.float64]:
    """Bits in which a model encodes the continuation of each passage, (passages,)."""
    # The two parts are encoded separately, so that the continuation has the same tokens whatever the beginning is.
    rows = [
        ([tokenizer.end_of_text, *tokenizer.encode(passage.beginning)], tokenizer.encode(passage.continuation)[:length])
        for passage in passages
    ]
    return continuation_bits(model, rows, length)


def constrained_requests(num: int, seed: int) -> list[Task]:
    """The first `num` held-out tasks that ask about a topic under constraints."""
    # At least every other task qualifies.
    tasks = held_out(2 * num + 2, seed)
    return [task for task in tasks if task.topic is not None and task.checks][:num]


def accuracies_with_typos(
    model: ChatModel, tasks: Sequence[Task], max_new_tokens: int, seed: int
) -> dict[float, dict[str, float]]:
    """`instruction_accuracy` and `topic_mentioned` at each of `RATES`, with typos in the requests."""
    requests = [
        mistyped_task(task, rate, Random(f"request:{seed}:{rate}:{index}"))
        for rate in RATES
        for index, task in enumerate(tasks)
    ]
    # One call for all rates, so that the generator's batches stay full.
    answers = model.answer([task.messages for task in requests], max_new_tokens)
    accuracies = {}
    for number, rate in enumerate(RATES):
        texts = [answer.text for answer in answers[number * len(tasks) : (number + 1) * len(tasks)]]
        scores = score_answers(texts, tasks)
        accuracies[rate] = {
            "instruction_accuracy": scores.instruction_accuracy.value,
            "topic_mentioned": scores.topic_mentioned.value,
        }
    return accuracies
