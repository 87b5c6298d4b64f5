"""Cross entropy of a linear head, in chunks, so that the logits of a whole batch are never in memory at once.

This is Liger Kernel's fused linear cross entropy (Hsu et al. 2024): the gradient of a chunk is known as soon as its
logits are, so it is computed in the forward pass, and the logits are discarded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from keylm.common.arrays import IGNORE_INDEX
from keylm.model.kernels.ops import accumulate, cast_and_pad_lm_head, cross_entropy, nll

_CHUNK_ROWS = 512
"""Positions whose logits are in memory at a time. Chunks are always full, because each new shape costs oneDNN a kernel
and its memory."""
_GPU_CHUNK_ROWS = 8192
"""The same on GPUs, which need larger products to be busy: 400 MB of float32 for a vocabulary of 12,020."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods of targets (n,), in nats, for hidden states (n, H) and weight (V, H).

    Targets of -100 do not count. Differentiable once, with respect to `hidden` and `weight`. Matrix products run in the
    dtype of `hidden`, the softmax in float32.
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return total


def linear_nll(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target (n,), in nats, float32; 0 for targets of -100. Not differentiable."""
    padded_weight = cast_and_pad_lm_head(weight, hidden)
    out = torch.zeros(len(targets), device=hidden.device)
    for chunk in _chunks(targets):
        out[chunk] = nll(F.linear(hidden[chunk], padded_weight), targets[chunk], len(weight))
    return out


def _chunks(targets: Tensor) -> Sequence[Tensor | slice]:
    """Indices of the targets, in chunks; on CPUs of those that count, and ignored ones fill up the last chunk."""
    if targets.device.type != "cpu":
        # To count and sort them, the host would have to wait for the GPU.
        return [slice(start, start + _GPU_CHUNK_ROWS) for start in range(0, len(targets), _GPU_CHUNK_ROWS)]
    # Ignored positions are sorted to the end, and whole chunks of them are skipped: in SFT they are many.
    is_ignored = targets == IGNORE_INDEX
    order = is_ignored.to(torch.int8).argsort(stable=True)
    num_chunks = -(-(len(targets) - int(is_ignored.sum())) // _CHUNK_ROWS)
    return torch.split(order[: num_chunks * _CHUNK_ROWS], _CHUNK_ROWS)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        padded_weight = cast_and_pad_lm_head(weight, hidden)
        grad_hidden = torch.zeros_like(hidden)
        # Float32 by default: a sum over many chunks in bfloat16 would lose the later ones.
        grad_weight = torch.zeros(padded_weight.shape, device=hidden.device)
        total = torch.zeros((), device=hidden.device)
        for chunk in _chunks(targets):
            h = hidden[chunk]
            losses, grad_logits = cross_entropy(F.linear(h, padded_weight), targets[chunk], len(weight))
            total += losses.sum()
            grad_hidden[chunk] = grad_logits @ padded_weight
            accumulate(grad_weight, grad_logits.T @ h)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.vocab_size = len(weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grads[0]), grad_weight.mul_(grads[0])[: ctx.vocab_size], None
