"""The device: which one there is, and what is done differently on it. The one place that knows of CUDA.

| | processor | CUDA |
|---|---|---|
| ranks talk by | gloo | NCCL |
| layers | run as they are | compiled by `torch.compile` |
| attention within documents | each by itself (`keylm.packed`) | flex attention, which skips masked blocks |
| attention without documents | `keylm.kernels`, or torch's | torch's own choice: flash attention in bfloat16 |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from keylm import machine, ranks
from keylm.kernels.ops import causal_attention
from keylm.packed import Documents

Mask = Tensor | Documents | BlockMask | None
"""What a query may look at: boolean (B, 1, T, S), its own document, or, with None, everything before it."""


def choose() -> torch.device:
    """This rank's GPU where there is one, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", ranks.local_rank())
    torch.cuda.set_device(device)
    return device


def backend(device: torch.device) -> str:
    """Name of the library through which ranks on such devices talk."""
    return "nccl" if device.type == "cuda" else "gloo"


def compile_layers(layers: nn.ModuleList, device: torch.device) -> None:
    """Compile each layer in place where that pays: on a processor it was slower than plain torch."""
    if device.type == "cuda":
        for layer in layers:
            layer.compile()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
    """Grouped-query attention of queries (B, N, T, D) to keys and values (B, K, S, D): (B, T, N, D), by the kernel that
    fits `mask`.

    Args:
        mask: None (causal), boolean (True where a query may look), or what `within_documents` gave.
    """
    if isinstance(mask, Documents):
        return mask.attend(q, k, v)
    if isinstance(mask, BlockMask):
        seen = flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
        assert isinstance(seen, Tensor)
        return seen.transpose(1, 2)
    if mask is None:
        return causal_attention(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def within_documents(segments: Tensor, dtype: torch.dtype) -> Mask:
    """What lets a query see its own document up to itself, for document numbers (B, T) and attention in `dtype`."""
    return block_mask(segments) if segments.is_cuda else Documents.of(segments, dtype)


def block_mask(segments: Tensor) -> BlockMask:
    """Flex attention's mask for document numbers (B, T): a query sees the keys of its own document up to itself."""

    def sees(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (segments[batch, query] == segments[batch, key])

    rows, length = segments.shape
    return create_block_mask(sees, rows, None, length, length, device=str(segments.device))


def peak_memory(device: torch.device) -> int:
    """Bytes that this process held at most, on the device that it computes on."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else machine.peak_memory()
