"""Bits per byte on held-out text, during training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from keylm.common.arrays import IGNORE_INDEX
from keylm.data.loading.packing import ConcatSequences
from keylm.data.prepare.token_store import TokenStore
from keylm.train.distributed import SINGLE_PROCESS, DistContext


@dataclass(frozen=True)
class Validation:
    """The beginning of each source's validation text, cut into sequences."""

    stores: dict[str, TokenStore]
    """Validation stores by source name."""
    num_bytes: int
    """Bytes of text to score per source (0: none)."""
    sequence_length: int
    """Tokens per sequence."""

    def bits_per_byte(
        self,
        objective: nn.Module,
        dist: DistContext = SINGLE_PROCESS,
        before_sequence: Callable[[], None] = lambda: None,
    ) -> dict[str, float]:
        """Bits per byte of text, by source. Sources without validation text are left out.

        The ranks share the sequences, and all get the scores. Sequences are scored one by one, so their first tokens
        lack context: `keylm eval` uses a sliding window and measures a little less. All ranks call `before_sequence`
        equally often; it may raise to stop.
        """
        if not self.num_bytes:
            return {}
        objective.eval()
        scores = {
            name: self._score_source(objective, store, dist, before_sequence)
            for name, store in self.stores.items()
            if store.num_documents
        }
        objective.train()
        return scores

    @torch.no_grad()
    def _score_source(
        self, objective: nn.Module, store: TokenStore, dist: DistContext, before_sequence: Callable[[], None]
    ) -> float:
        # Concatenated in SFT too: every token counts once, however the training sequences are packed.
        sequences = ConcatSequences(store, self.sequence_length)
        bytes_per_token = float(store.document_bytes.sum()) / store.num_tokens
        num_sequences = min(sequences.num_blocks, math.ceil(self.num_bytes / bytes_per_token / self.sequence_length))
        nats, num_targets = 0.0, 0
        for first in range(0, num_sequences, dist.world_size):
            before_sequence()
            # All ranks must score equally many sequences, because FSDP gathers parameters in each. A rank that has none
            # left repeats the last one, without targets.
            index = first + dist.rank
            inputs, next_tokens = sequences.tokens_and_targets(min(index, num_sequences - 1))
            tokens, targets = torch.from_numpy(inputs.astype(np.int64))[None], torch.from_numpy(next_tokens)[None]
            if index >= num_sequences:
                targets.fill_(IGNORE_INDEX)
            nats += objective(tokens.to(dist.device), targets.to(dist.device)).item()
            num_targets += int((targets != IGNORE_INDEX).sum())
        total_nats, total_targets = dist.sum(nats, num_targets)
        return round(total_nats / math.log(2) / (total_targets * bytes_per_token), 4)
