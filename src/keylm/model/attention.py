"""Attention: which kernel computes it, and the masks of packed documents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from keylm.model.document_attention import PackedDocuments
from keylm.model.kernels.ops import causal_attention

Mask = Tensor | PackedDocuments | BlockMask | None
"""What a query may look at: boolean (B, 1, T, S), its own document, or, with None, everything before it."""


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Grouped-query attention of queries (B, N, T, D) to keys and values (B, K, S, D): (B, T, N, D), by the kernel that
    fits `mask`.

    Args:
        mask: None (causal), boolean (True where a query may look), or what `document_mask` gave.
    """
    if isinstance(mask, PackedDocuments):
        return mask.attend(q, k, v)
    if isinstance(mask, BlockMask):
        seen = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        assert isinstance(seen, Tensor)
        return seen.transpose(1, 2)
    if mask is None:
        return causal_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def document_mask(segments: Tensor, dtype: torch.dtype) -> Mask:
    """What lets a query see its own document up to itself, for document numbers (B, T) and attention in `dtype`."""
    return block_mask(segments) if segments.is_cuda else PackedDocuments.of(segments, dtype)


def block_mask(segments: Tensor) -> BlockMask:
    """Flex attention's mask for document numbers (B, T): a query sees the keys of its own document up to itself."""

    def sees(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[batch, query] == segments[batch, key])

    rows, length = segments.shape
    return create_block_mask(sees, rows, None, length, length, device=str(segments.device))
