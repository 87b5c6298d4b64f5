"""Bits per byte on held-out text, during training."""

from __future__ import annotations

import math
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
    """Bytes of text to code per source."""
    length: int
    """Tokens per sequence."""

    def bits_per_byte(self, objective: nn.Module, world: DistContext = SINGLE_PROCESS) -> dict[str, float]:
        """Bits that the model needs per byte of text, by source; sources without validation text are left out.

        The ranks divide the sequences among themselves, and all get the scores. Sequences are coded one by one, so
        their first tokens lack context: `keylm eval` measures with a sliding window, and a little lower.
        """
        found = {name: store for name, store in self.stores.items() if store.num_documents and self.num_bytes}
        objective.eval()
        scores = {name: self._one(objective, store, world) for name, store in found.items()}
        objective.train()
        return scores

    @torch.no_grad()
    def _one(self, objective: nn.Module, store: TokenStore, world: DistContext) -> float:
        blocks = ConcatSequences(store, self.length)
        bytes_per_token = float(store.document_bytes.sum()) / store.num_tokens
        num_blocks = min(blocks.num_blocks, math.ceil(self.num_bytes / bytes_per_token / self.length))
        nats, num_targets = 0.0, 0
        # Every rank codes equally many sequences, for FSDP's sake: where there are none left, one that does not count.
        for first in range(0, num_blocks, world.size):
            found, following = blocks.tokens_and_targets(min(first + world.rank, num_blocks - 1))
            tokens, targets = torch.from_numpy(found.astype(np.int64))[None], torch.from_numpy(following)[None]
            if first + world.rank >= num_blocks:
                targets.fill_(IGNORE_INDEX)
            nats += objective(tokens.to(world.device), targets.to(world.device)).item()
            num_targets += int((targets != IGNORE_INDEX).sum())
        total_nats, total_targets = world.sum(nats, num_targets)
        return round(total_nats / math.log(2) / (total_targets * bytes_per_token), 4)
