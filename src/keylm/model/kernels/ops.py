"""The steps of the decoder between its products, each with a plain form in torch, which says what it is.

The compiled form (`kernels.cpp`) runs for bfloat16 on a CPU. It keeps less for the backward pass and rounds to bfloat16
only what it stores; for the rest the two agree, which the tests hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from keylm.model.kernels import build

_PARTS = 32
"""Partial sums over rows: `PARTS` in `kernels.cpp`."""
_QUERIES = 64
"""Queries of a block in attention: `QUERIES` in `kernels.cpp`."""
_LINE = 64
"""Columns that rows of logits are made a multiple of: two cache lines."""


def compiled(x: Tensor) -> bool:
    """Whether the compiled forms serve this tensor."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and build.library() is not None


def linear(x: Tensor, *weights: Tensor) -> Tensor:
    """`x @ cat(weights).T` in the dtype of `x`, for float32 weights (rows, columns) of one width."""
    if x.dtype == torch.float32:
        return F.linear(x, torch.cat(weights) if len(weights) > 1 else weights[0])
    out: Tensor = _Linear.apply(x, *weights)  # type: ignore[no-untyped-call]
    return out


def add_rms_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """`x + delta` (x itself without delta), and its root mean square norm over the last dimension."""
    if compiled(x):
        total, out = _AddRMSNorm.apply(x, delta, weight, eps)  # type: ignore[no-untyped-call]
        return total, out
    total = x if delta is None else x + delta
    return total, F.rms_norm(total, weight.shape, weight.to(x.dtype), eps)


def norm_linear(
    x: Tensor, delta: Tensor | None, norm_weight: Tensor, eps: float, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """`add_rms_norm`, then `linear` on the normed sum: the sum and the products."""
    if compiled(x):
        total, out = _NormLinear.apply(x, delta, norm_weight, eps, *weights)  # type: ignore[no-untyped-call]
        return total, out
    total, normed = add_rms_norm(x, delta, norm_weight, eps)
    return total, linear(normed, *weights)


def split_norm_rope(
    qkv: Tensor, q_weight: Tensor, k_weight: Tensor, rotary: Tensor, num_heads: tuple[int, int], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (B, N, T, D), keys and values (B, K, T, D) from `qkv` (B, T, (N + 2 K) D): split, queries and keys
    normed and turned by `rotary` (2, B or 1, T, 1, D), float32. `num_heads` is (N, K)."""
    if compiled(qkv):
        q, k, v = _Heads.apply(qkv, q_weight, k_weight, rotary.contiguous(), num_heads, eps)  # type: ignore[no-untyped-call]
        return q, k, v
    queries, keys = num_heads
    width = q_weight.shape[0]
    q, k, v = torch.split(qkv.view(*qkv.shape[:-1], -1, width), [queries, keys, keys], dim=2)
    rotary = rotary.to(qkv.dtype)
    q = _rotate(F.rms_norm(q, (width,), q_weight.to(qkv.dtype), eps), rotary)
    k = _rotate(F.rms_norm(k, (width,), k_weight.to(qkv.dtype), eps), rotary)
    return q, k, v.transpose(1, 2)


def causal_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, T, N, D) from queries (B, N, T, D), keys and values (B, K, T, D); a query sees keys up to its place."""
    if compiled(q) and q.shape[2] % _QUERIES == 0 and q.shape[3] % 32 == 0 and build.block_products() is not None:
        out: Tensor = _CausalAttention.apply(q.contiguous(), k.contiguous(), v.contiguous())  # type: ignore[no-untyped-call]
        return out
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True).transpose(1, 2)


def swiglu_linear(gate_up: Tensor, weight: Tensor) -> Tensor:
    """`linear(silu(gate) * up, weight)`, for gate and up side by side in the last dimension."""
    if compiled(gate_up):
        out: Tensor = _SwigluLinear.apply(gate_up, weight)  # type: ignore[no-untyped-call]
        return out
    gate, up = gate_up.chunk(2, dim=-1)
    return linear(F.silu(gate) * up, weight)


def cast_and_pad_lm_head(weight: Tensor, like: Tensor) -> Tensor:
    """The weight (V, H) of the head in the dtype of `like`, for products whose result goes to `cross_entropy`.

    Compiled, rows of zeros make it a multiple of 64: rows of logits then begin with a cache line."""
    rows = -(-len(weight) // _LINE) * _LINE if compiled(like) else len(weight)
    low = like.new_zeros(rows, weight.shape[1])
    low[: len(weight)] = weight
    return low


def cross_entropy(logits: Tensor, targets: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood (n,) in nats, float32, of each target (n,), and the gradient in the logits (n, V) of its
    sum. Both are 0 where a target is negative. Of a row's logits the first `size` count. The logits may be overwritten.
    The softmax is in float32."""
    if compiled(logits):
        nll = logits.new_empty(len(targets), dtype=torch.float32)
        build.call("cross_entropy", logits, targets.contiguous(), nll, len(targets), size, logits.shape[1])
        return nll, logits
    counts, picked = targets[:, None] >= 0, targets[:, None].clamp(min=0)
    log_p = logits[:, :size].float().log_softmax(dim=1)
    nll = (-log_p.gather(1, picked) * counts).flatten()
    grad = log_p.exp_().scatter_add_(1, picked, torch.full_like(picked, -1, dtype=log_p.dtype))
    return nll, F.pad((grad * counts).to(logits.dtype), (0, logits.shape[1] - size))


def accumulate(total: Tensor, x: Tensor) -> None:
    """`total += x`, for a float32 total."""
    if compiled(x) and x.is_contiguous():
        build.call("accumulate", total, x, x.numel())
    else:
        total += x


def weight_grad(grad: Tensor, x: Tensor) -> Tensor:
    """`grad.T @ x`, the gradient of a weight, float32, for grad (n, rows) and x (n, columns).

    oneDNN takes up to twice as long where the left side is a transpose: of the two, the narrower is transposed before.
    """
    rows, columns = grad.shape[1], x.shape[1]
    if not compiled(x) or len(x) % 32 or rows % 16 or columns % 16:
        return (grad.T @ x).float()
    if rows <= columns:
        return (_transpose(grad) @ x).float()
    turned = _transpose(x) @ grad
    out = turned.new_empty(rows, columns, dtype=torch.float32)
    build.call("transpose_up", turned, out, columns, rows)
    return out


def _rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn heads (B, T, N, D) by their positions, and bring the heads to the front: (B, N, T, D)."""
    cos, sin = rotary
    left, right = x.chunk(2, dim=-1)
    turned: Tensor = x * cos + torch.cat([-right, left], dim=-1) * sin
    return turned.transpose(1, 2)


class _Linear(Function):
    """The weights are cast and joined in one pass, again in the backward pass rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(x, *weights)
        return F.linear(x, _cast_and_join(weights, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        x, *weights = ctx.saved_tensors
        return grad @ _cast_and_join(weights, x.dtype), *_weight_grads(grad, x, weights)


class _SwigluLinear(Function):
    """Keeps gate and up alone; their product is made again in the pass that needs them anyway."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, weight: Tensor) -> Tensor:
        product = gate_up.new_empty(*gate_up.shape[:-1], weight.shape[1])
        build.call("swiglu", gate_up, product, product.numel() // weight.shape[1], weight.shape[1])
        ctx.save_for_backward(gate_up, weight)
        return F.linear(product, weight.to(gate_up.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        gate_up, weight = ctx.saved_tensors
        grad_product = grad @ weight.to(grad.dtype)
        grad_gate_up, product = torch.empty_like(gate_up), torch.empty_like(grad_product)
        rows, width = product.numel() // weight.shape[1], weight.shape[1]
        build.call("swiglu_backward", gate_up, grad_product, grad_gate_up, product, rows, width)
        return grad_gate_up, *_weight_grads(grad, product, [weight])


class _NormLinear(Function):
    """Keeps the sum alone; its norm is made again in the pass that needs it anyway."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, delta: Tensor | None, norm_weight: Tensor, eps: float, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        total, normed = _add_rms_norm(x, delta, norm_weight, eps)
        ctx.save_for_backward(total, norm_weight, *weights)
        ctx.eps, ctx.adds = eps, delta is not None
        ctx.set_materialize_grads(False)
        return total, F.linear(normed, _cast_and_join(weights, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        total, norm_weight, *weights = ctx.saved_tensors
        grad_normed = grad_out @ _cast_and_join(weights, total.dtype)
        grad, normed, grad_norm = _add_rms_norm_backward(total, norm_weight, grad_normed, grad_total, ctx.eps)
        return grad, grad if ctx.adds else None, grad_norm, None, *_weight_grads(grad_out, normed, weights)


class _AddRMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        total, out = _add_rms_norm(x, delta, weight, eps)
        ctx.save_for_backward(total, weight)
        ctx.eps, ctx.adds = eps, delta is not None
        ctx.set_materialize_grads(False)
        return total, out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor | None, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        grad, _, grad_weight = _add_rms_norm_backward(total, weight, grad_out.contiguous(), grad_total, ctx.eps)
        return grad, grad if ctx.adds else None, grad_weight, None


class _Heads(Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        q_weight: Tensor,
        k_weight: Tensor,
        rotary: Tensor,
        num_heads: tuple[int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, time, width = *qkv.shape[:2], q_weight.shape[0]
        queries, keys = num_heads
        q = qkv.new_empty(batch, queries, time, width)
        k, v = (qkv.new_empty(batch, keys, time, width) for _ in range(2))
        ctx.sizes = (batch, time, queries, keys, width, rotary.shape[1], eps)
        ctx.save_for_backward(qkv, q_weight, k_weight, rotary)
        build.call("heads", qkv, q_weight, k_weight, rotary, q, k, v, *ctx.sizes)
        return q, k, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, q_weight, k_weight, rotary = ctx.saved_tensors
        grad, parts = torch.empty_like(qkv), q_weight.new_empty(_PARTS, 2, q_weight.shape[0])
        contiguous = (grad_of.contiguous() for grad_of in grads)
        build.call("heads_backward", qkv, q_weight, k_weight, rotary, *contiguous, grad, parts, *ctx.sizes)
        q_grad, k_grad = parts.sum(0)
        return grad, q_grad, k_grad, None, None, None


class _CausalAttention(Function):
    """Attention by blocks, scores never in main memory (Dao et al. 2022, "FlashAttention")."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, queries, time, width = q.shape
        out = q.new_empty(batch, time, queries, width)
        lse = q.new_empty(batch, queries, time, dtype=torch.float32)
        ctx.sizes = (batch, queries, k.shape[1], time, width)
        ctx.save_for_backward(q, k, v, out, lse)
        build.call("attention", *(build.block_products() or ()), q, k, v, out, lse, *ctx.sizes)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, out, lse = ctx.saved_tensors
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        products = build.block_products() or ()
        build.call("attention_backward", *products, q, k, v, out, lse, grad.contiguous(), *grads, *ctx.sizes)
        return grads


def _add_rms_norm(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total, out = x.clone() if delta is None else torch.empty_like(x), torch.empty_like(x)
    width = weight.shape[0]
    build.call("add_rms_norm", x, delta, weight, total, out, x.numel() // width, width, eps)
    return total, out


def _add_rms_norm_backward(
    total: Tensor, weight: Tensor, grad_out: Tensor, grad_total: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient in the sum, the sum's norm once more, and the gradient in the weight."""
    grad, out, width = torch.empty_like(total), torch.empty_like(total), weight.shape[0]
    along = None if grad_total is None else grad_total.contiguous()
    parts = weight.new_empty(_PARTS, width)
    rows = total.numel() // width
    build.call("add_rms_norm_backward", total, weight, grad_out, along, grad, out, parts, rows, width, eps)
    return grad, out, parts.sum(0)


def _cast_and_join(weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    if len(weights) == 1:
        return weights[0].to(dtype)
    rows = [weight.shape[0] for weight in weights]
    joined = weights[0].new_empty(sum(rows), weights[0].shape[1], dtype=dtype)
    for part, weight in zip(torch.split(joined, rows), weights, strict=True):
        part.copy_(weight)
    return joined


def _weight_grads(grad: Tensor, x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of `x @ cat(weights).T` in each of the weights, summed over all leading dimensions, float32."""
    joined = weight_grad(grad.flatten(0, -2), x.flatten(0, -2))
    return torch.split(joined, [weight.shape[0] for weight in weights])


def _transpose(x: Tensor) -> Tensor:
    turned = x.new_empty(x.shape[1], x.shape[0])
    build.call("transpose", x.contiguous(), turned, *x.shape)
    return turned
