"""Grouped-query attention: the masks, and the kernel that computes each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from keylm.model.device import compiled
from keylm.model.document_attention import PackedDocuments
from keylm.model.kernels.ops import causal_attention
from keylm.model.kv_cache import CachedContext

Mask = Tensor | PackedDocuments | BlockMask | CachedContext | None
"""What a query may attend to: a boolean tensor (B, 1, T, S), its own document, what is cached of its sequence, or, for
None, all earlier positions."""


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Attend queries (B, N, T, D) to keys and values (B, K, S, D), with the kernel that fits the mask.

    Args:
        mask: None (causal), a boolean tensor (True where a query may attend), the result of `document_mask`, or the
            layer's context in a `KVCache`.

    Returns:
        (B, T, N, D)
    """
    if isinstance(mask, PackedDocuments | CachedContext):
        return mask.attend(q, k, v)
    if isinstance(mask, BlockMask):
        out = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)
    # Without a mask, so that kernels skip the upper triangle instead of computing and masking it.
    if mask is None:
        return causal_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def document_mask(document_ids: Tensor, dtype: torch.dtype) -> Mask:
    """The mask that keeps causal attention within documents, for document ids (B, T) and attention in `dtype`."""
    is_on_cpu = document_ids.device.type == "cpu"
    return PackedDocuments.of(document_ids, dtype) if is_on_cpu else block_mask(document_ids)


def block_mask(document_ids: Tensor) -> BlockMask:
    """The same mask for flex attention, which skips the blocks that are masked entirely."""

    def mask_mod(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (document_ids[batch, query] == document_ids[batch, key])

    # No number of heads: one mask serves them all. Compiled, because it would otherwise fill a boolean (B, T, T).
    batch_size, length = document_ids.shape
    make_mask = compiled(create_block_mask)
    mask: BlockMask = make_mask(mask_mod, batch_size, None, length, length, device=str(document_ids.device))
    return mask
