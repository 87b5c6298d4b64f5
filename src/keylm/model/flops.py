"""Parameter counts, floating point operations per token, and the measured peak rate of matrix products."""

from __future__ import annotations

import time

import torch

from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig


def num_parameters(model: KeyLM) -> int:
    """Number of parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())


def num_matmul_parameters(config: ModelConfig) -> int:
    """Number of weights that every token is multiplied with: all but the embedding and the norms."""
    attention = config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    layer = config.hidden_size * (attention + 3 * config.intermediate_size)
    return config.num_hidden_layers * layer + config.vocab_size * config.hidden_size


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """Floating point operations to train on one token: 6 per matmul parameter (Kaplan et al. 2020), and the two
    products of causal attention, forward and backward."""
    # Two products of 2 operations per query, key and channel, three times (forward, and two gradients), of which
    # causality saves half: 6.
    attention = 6 * config.num_hidden_layers * sequence_length * config.num_attention_heads * config.head_dim
    return 6 * num_matmul_parameters(config) + attention


def matmul_flops_per_second(
    config: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device | None = None, seconds: float = 0.5
) -> float:
    """Measure the peak rate of this machine's matrix products at the shapes of the model's forward pass.

    Training reports its MFU relative to this measured peak, not to a data sheet's.

    Args:
        config: the model.
        tokens: rows of the left operand, the tokens of a micro-batch.
        dtype: of both operands.
        device: where to multiply; the CPU by default.
        seconds: roughly how long to measure; the fastest round counts.

    Returns:
        Floating point operations per second, of one rank.
    """
    shapes = [
        (config.hidden_size, config.head_dim * (config.num_attention_heads + 2 * config.num_key_value_heads)),
        (config.head_dim * config.num_attention_heads, config.hidden_size),
        (config.hidden_size, 2 * config.intermediate_size),
        (config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.vocab_size),
    ]
    repeats = [config.num_hidden_layers] * 4 + [1]
    operands = [
        (torch.randn(tokens, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype)) for k, n in shapes
    ]
    flops = sum(2 * tokens * k * n * times for (k, n), times in zip(shapes, repeats, strict=True))
    # The fastest round: other programs can only slow one down.
    fastest, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        duration = sum(_matmul_seconds(x, weight) * times for (x, weight), times in zip(operands, repeats, strict=True))
        fastest = min(fastest, duration)
    return flops / fastest


def _matmul_seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    start = time.perf_counter()
    x @ weight.T
    # CUDA kernels run asynchronously.
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start
