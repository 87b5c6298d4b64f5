"""Bits per byte on held-out text, during training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from keylm.data.batches import StreamBlocks
from keylm.data.store import TokenStore
from keylm.model import KeyLM


@dataclass(frozen=True)
class Validation:
    """The beginning of each source's validation text, cut into sequences."""

    stores: dict[str, TokenStore]
    """Validation stores by source name."""
    num_bytes: int
    """Bytes of text to code per source."""
    length: int
    """Tokens per sequence."""

    def bits_per_byte(self, model: KeyLM) -> dict[str, float]:
        """Bits that the model needs per byte of text, by source; sources without validation text are left out.

        Sequences are coded one by one, so their first tokens lack context: `keylm eval` measures with a sliding
        window, and a little lower.
        """
        found = {name: store for name, store in self.stores.items() if store.num_documents and self.num_bytes}
        model.eval()
        scores = {name: self._one(model, store) for name, store in found.items()}
        model.train()
        return scores

    def _one(self, model: KeyLM, store: TokenStore) -> float:
        blocks = StreamBlocks(store, self.length)
        bytes_per_token = float(store.document_bytes.sum()) / store.num_tokens
        num_blocks = min(blocks.num_blocks, math.ceil(self.num_bytes / bytes_per_token / self.length))
        nats, num_targets = 0.0, 0
        for block in range(num_blocks):
            tokens, targets = blocks.read(block)
            nats += (
                model.nll(torch.from_numpy(tokens.astype(np.int64))[None], torch.from_numpy(targets)[None]).sum().item()
            )
            num_targets += len(targets)
        bits: float = nats / math.log(2) / (num_targets * bytes_per_token)
        return round(bits, 4)
