"""The KV cache: keys and values of sequences that are being generated, so that a new token costs one position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from keylm.recipe.model import ModelConfig


class KVCache:
    """Keys and values of every layer, float32, for sequences in numbered slots.

    Args:
        config: The model's sizes.
        num_slots: Sequences that are generated at the same time.
        capacity: Positions of a sequence.
        device: The model's device, by default the CPU.
    """

    def __init__(self, config: ModelConfig, num_slots: int, capacity: int, device: torch.device | None = None) -> None:
        shape = (config.num_hidden_layers, num_slots, config.num_key_value_heads, capacity, config.head_dim)
        # Zeros, because a position that is masked has no weight, but NaN times no weight is NaN.
        self._keys, self._values = torch.zeros(shape, device=device), torch.zeros(shape, device=device)

    def contexts(self, first_slot: int, positions: Tensor) -> list[CachedContext]:
        """The context of each layer, for tokens at `positions` (B, T) of the B slots from `first_slot` on."""
        slots, length = slice(first_slot, first_slot + len(positions)), int(positions.max()) + 1
        positions = positions.to(self._keys.device)
        mask = torch.arange(length, device=positions.device) <= positions[:, None, :, None]
        return [
            CachedContext(keys[slots, :, :length], values[slots, :, :length], positions, mask)
            for keys, values in zip(self._keys, self._values, strict=True)
        ]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of the slot `source` to the slot `target`."""
        for cached in (self._keys, self._values):
            cached[:, target, :, :length] = cached[:, source, :, :length]


@dataclass(frozen=True)
class CachedContext:
    """What new tokens (B, T) of a layer attend to: the cached positions of their sequence, and each other."""

    keys: Tensor
    """(B, K, S, D), a view of the cache, as are the values."""
    values: Tensor
    positions: Tensor
    """Of the new tokens, (B, T)."""
    mask: Tensor
    """Where a token may attend, (B, 1, T, S)."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Cache keys and values (B, K, T, D) of the new tokens, and attend their queries (B, N, T, D): (B, T, N, D)."""
        rows = torch.arange(len(q), device=q.device)[:, None]
        self.keys[rows, :, self.positions] = k.transpose(1, 2)
        self.values[rows, :, self.positions] = v.transpose(1, 2)
        # Query heads that share a key head become queries of one head: nothing is repeated, as `enable_gqa` would.
        num_sharing = q.shape[1] // k.shape[1]
        grouped, mask = q.reshape(*k.shape[:2], -1, q.shape[3]), self.mask.repeat(1, 1, num_sharing, 1)
        out = F.scaled_dot_product_attention(grouped, self.keys, self.values, attn_mask=mask)
        return out.view(q.shape).transpose(1, 2)
