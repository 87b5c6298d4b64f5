"""Parameters, floating point operations per token, and the measured rate of matrix products."""

from __future__ import annotations

import time

import torch

from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig


def num_matmul_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: all but the embedding and the norms."""
    heads = config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    layer = config.hidden_size * (heads + 3 * config.intermediate_size)
    return config.num_hidden_layers * layer + config.vocab_size * config.hidden_size


def flops_per_token(config: ModelConfig, sequence_length: int) -> int:
    """Floating point operations of training on one token: 6 per matmul parameter (Kaplan et al. 2020), and causal
    attention's two products, forward and backward."""
    attention = 6 * config.num_hidden_layers * sequence_length * config.num_attention_heads * config.head_dim
    return 6 * num_matmul_parameters(config) + attention


def matmul_flops_per_second(
    config: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device | None = None, seconds: float = 0.5
) -> float:
    """Operations per second of bare matrix products at the model's own shapes, for about `seconds`."""
    shapes = [
        (config.hidden_size, config.head_dim * (config.num_attention_heads + 2 * config.num_key_value_heads)),
        (config.head_dim * config.num_attention_heads, config.hidden_size),
        (config.hidden_size, 2 * config.intermediate_size),
        (config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.vocab_size),
    ]
    repeats = [config.num_hidden_layers] * 4 + [1]
    products = [
        (torch.randn(tokens, k, device=device).to(dtype), torch.randn(n, k, device=device).to(dtype)) for k, n in shapes
    ]
    flops = sum(2 * tokens * k * n * times for (k, n), times in zip(shapes, repeats, strict=True))
    fastest, deadline = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        took = sum(_seconds(x, w) * times for (x, w), times in zip(products, repeats, strict=True))
        fastest = min(fastest, took)
    return flops / fastest


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    start = time.perf_counter()
    x @ weight.T
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def num_parameters(model: KeyLM) -> int:
    """All parameters of a model."""
    return sum(parameter.numel() for parameter in model.parameters())
