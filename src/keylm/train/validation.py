"""Bits per byte on held-out text and held-out answers, during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.loading.packing import ConcatSequences, PackedSequences, Sequences
from keylm.data.prepare.token_store import TokenStore
from keylm.tokenizer.tokenizer import Tokenizer
from keylm.train.distributed import SINGLE_PROCESS, DistContext

_DECODED_TOKENS = 1_000_000
"""Tokens of a store whose answers are decoded to count their bytes."""
_NOTED_RISE = 1.01
"""A score that exceeds the lowest one before it by this factor is said to rise: less is noise."""


@dataclass(frozen=True)
class HeldOut:
    """What of a source is scored."""

    sequences: Sequences
    num_sequences: int
    """The first so many of them."""
    bytes_per_target: float
    """UTF-8 bytes of text per token that is predicted."""


@dataclass(frozen=True)
class Validation:
    """Held-out text, or held-out answers, by source."""

    sources: dict[str, HeldOut]

    def bits_per_byte(
        self,
        objective: nn.Module,
        dist: DistContext = SINGLE_PROCESS,
        before_sequence: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Bits per byte by source.

        The ranks share the sequences, and all get the scores. Sequences are scored one by one, so their first tokens
        lack context: `keylm eval` uses a sliding window and measures a little less. All ranks call `before_sequence`
        equally often; it may raise to stop.
        """
        objective.eval()
        scores = {name: _score(objective, held_out, dist, before_sequence) for name, held_out in self.sources.items()}
        objective.train()
        return scores


def validation_on_text(stores: Mapping[str, TokenStore], num_bytes: int, length: int) -> Validation:
    """Score the beginning of each source's held-out text, every token once.

    Args:
        stores: Validation stores by source name; those without documents are left out.
        num_bytes: Bytes of text to score per source (0: none).
        length: Tokens per sequence.
    """
    sources = {}
    for name, store in _to_score(stores, num_bytes).items():
        bytes_per_token = _bytes_per_token(store)
        # Concatenated in SFT too: every token counts once, however the training sequences are packed.
        sequences = ConcatSequences(store, length)
        num_sequences = min(sequences.num_blocks, math.ceil(num_bytes / bytes_per_token / length))
        sources[name] = HeldOut(sequences, num_sequences, bytes_per_token)
    return Validation(sources)


def validation_on_answers(
    stores: Mapping[str, TokenStore], tokenizer: Tokenizer, num_bytes: int, length: int
) -> Validation:
    """Score the assistant's turns of each source's held-out conversations, packed as in training.

    Args:
        stores: Validation stores of conversations by source name; those without documents are left out.
        tokenizer: Their tokenizer.
        num_bytes: Bytes of conversations to score per source (0: none).
        length: Tokens per sequence.
    """
    sources = {}
    for name, store in _to_score(stores, num_bytes).items():
        sequences = PackedSequences(store, length, conversations=True)
        num_sequences = min(sequences.num_blocks, math.ceil(num_bytes / _bytes_per_token(store) / length))
        if num_sequences:
            sources[name] = HeldOut(sequences, num_sequences, _bytes_per_answer_token(store, tokenizer))
    return Validation(sources)


def rising(scores: Mapping[str, float], earlier: Sequence[Mapping[str, Any]], key: str) -> dict[str, tuple[int, float]]:
    """The sources whose score exceeds an earlier one by more than noise: the step and the score of the lowest.

    Args:
        scores: The latest scores by source.
        earlier: Rows of metrics before them.
        key: What rows have such scores under.
    """
    found = {}
    for name, score in scores.items():
        before = [(row[key][name], row["step"]) for row in earlier if name in row.get(key, {})]
        if before and score > _NOTED_RISE * min(before)[0]:
            lowest, step = min(before)
            found[name] = (step, lowest)
    return found


def _to_score(stores: Mapping[str, TokenStore], num_bytes: int) -> dict[str, TokenStore]:
    return {name: store for name, store in stores.items() if num_bytes and store.num_documents}


def _bytes_per_token(store: TokenStore) -> float:
    return float(store.document_bytes.sum()) / store.num_tokens


def _bytes_per_answer_token(store: TokenStore, tokenizer: Tokenizer) -> float:
    # Only answers are predicted, and they may have other words than the requests.
    stop = min(store.num_tokens, _DECODED_TOKENS)
    answers = store.tokens(0, stop)[store.loss_mask(0, stop)]
    return len(tokenizer.decode(answers.tolist()).encode()) / len(answers)


@torch.no_grad()
def _score(objective: nn.Module, held_out: HeldOut, dist: DistContext, before_sequence: Callable[[], None]) -> float:
    nats, num_targets = 0.0, 0
    for first in range(0, held_out.num_sequences, dist.world_size):
        before_sequence()
        # All ranks must score equally many sequences, because FSDP gathers parameters in each. A rank that has none
        # left repeats the last one, without targets.
        index = first + dist.rank
        inputs, next_tokens = held_out.sequences.tokens_and_targets(min(index, held_out.num_sequences - 1))
        tokens, targets = torch.from_numpy(inputs.astype(np.int64))[None], torch.from_numpy(next_tokens)[None]
        if index >= held_out.num_sequences:
            targets.fill_(IGNORE_INDEX)
        nats += objective(tokens.to(dist.device), targets.to(dist.device)).item()
        num_targets += int((targets != IGNORE_INDEX).sum())
    total_nats, total_targets = dist.sum(nats, num_targets)
    return round(total_nats / math.log(2) / (total_targets * held_out.bytes_per_target), 4)
