"""Cross entropy of a linear head, computed in chunks: the logits of a whole batch never stand in memory at once.

The idea is that of Liger Kernel's fused linear cross entropy (Hsu et al. 2024): the gradient of a chunk is known as
soon as its logits are, so it is taken in the forward pass and the logits are thrown away.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from keylm.common.arrays import IGNORE_INDEX
from keylm.model.kernels.ops import accumulate, cast_and_pad_lm_head, cross_entropy

_CHUNK_ROWS = 512
"""Positions whose logits are held at a time. Always as many: every new shape costs oneDNN a kernel and its memory."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Sum of the negative log-likelihoods of targets (n,), in nats, for hidden (n, H) and weight (V, H).

    Differentiable once, in `hidden` and `weight`. Products run in the dtype of `hidden`, the softmax in float32.
    """
    total: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return total


def linear_nll(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of each target (n,), in nats, float32; 0 where ignored. Not differentiable."""
    weight = weight.to(hidden.dtype)
    chunks = [
        F.cross_entropy(F.linear(h, weight).float(), t, ignore_index=IGNORE_INDEX, reduction="none")
        for h, t in zip(torch.split(hidden, _CHUNK_ROWS), torch.split(targets, _CHUNK_ROWS), strict=True)
    ]
    return torch.cat(chunks)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        low = cast_and_pad_lm_head(weight, hidden)
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros(low.shape, device=hidden.device)
        total = torch.zeros((), device=hidden.device)
        # Positions that are not learned from come last, and whole chunks of them are left out: in SFT they are many.
        ignored = targets == IGNORE_INDEX
        order = ignored.to(torch.int8).argsort(stable=True)
        for chunk in torch.split(order[: _whole_chunks(len(targets) - int(ignored.sum()))], _CHUNK_ROWS):
            h = hidden[chunk]
            nll, grad = cross_entropy(F.linear(h, low), targets[chunk], len(weight))
            total += nll.sum()
            grad_hidden[chunk] = grad @ low
            accumulate(grad_weight, grad.T @ h)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.rows = len(weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden.mul_(grads[0]), grad_weight.mul_(grads[0])[: ctx.rows], None


def _whole_chunks(rows: int) -> int:
    return -(-rows // _CHUNK_ROWS) * _CHUNK_ROWS
