"""What this machine can do: the limit that training speed is held against."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from pathlib import Path

import torch

from keylm import recipe


def compute_dtype(asked: str) -> torch.dtype:
    """The dtype of matrix products: the one asked for, or for `auto` bfloat16 where there are instructions for it.

    Decided by what the processor is, never by a measurement, so that a resumed run computes as it did before.
    """
    if asked != "auto":
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def num_matmul_parameters(config: recipe.Model) -> int:
    """Weights that every token is multiplied with: all but the embedding and the norms."""
    heads = config.head_dim * (2 * config.num_attention_heads + 2 * config.num_key_value_heads)
    layer = config.hidden_size * (heads + 3 * config.intermediate_size)
    return config.num_hidden_layers * layer + config.vocab_size * config.hidden_size


def flops_per_token(config: recipe.Model, sequence_length: int) -> int:
    """Floating point operations of training on one token: 6 per matmul parameter (Kaplan et al. 2020), and causal
    attention's two products, forward and backward."""
    attention = 6 * config.num_hidden_layers * sequence_length * config.num_attention_heads * config.head_dim
    return 6 * num_matmul_parameters(config) + attention


def product_rate(
    config: recipe.Model, tokens: int, dtype: torch.dtype, device: torch.device | None = None, seconds: float = 0.5
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


def reset_peak_memory() -> None:
    """Start counting the peak anew, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory() -> int:
    """Bytes of main memory that this process held at most since `reset_peak_memory`."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next training step; elsewhere nothing changes.

    It gives large blocks back to the system and asks for them again, tens of thousands of pages in every step, which
    the system clears each time. The numbers are those of `mallopt(3)`: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-3, 2**25)


def describe() -> dict[str, str | int]:
    """Processor, cores and system, for reports."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in _lines(cpuinfo) if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    start = time.perf_counter()
    x @ weight.T
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start
