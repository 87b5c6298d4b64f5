"""Hold a training step against the machine and against transformers: `python benchmarks/train_step.py RECIPE`.

Everything is measured in one process by turns, and compared within a turn, so that a busy neighbour slows both sides of
a comparison; shown are medians over turns. The limit is the rate of bare matrix products at the model's own shapes
(`keylm.model.flops.matmul_flops_per_second`); the peer is transformers' `Qwen3ForCausalLM`, bfloat16 autocast,
fused AdamW, with the
same sizes, batch and gradient clip (and, in this one process, KeyLM's setting of the allocator). Peak memory is that of
two steps in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from keylm.common.hardware import keep_freed_memory, peak_memory_bytes
from keylm.model.flops import flops_per_token, matmul_flops_per_second
from keylm.model.initialization import init_model
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.optimizer import Optimizer

Step = Callable[[], None]


def main() -> None:
    """Print a line per side: seconds, tokens per second, share of the limit, times transformers, peak memory."""
    asked = _arguments()
    torch.set_num_threads(asked.threads)
    config = load_recipe(asked.recipe).model
    if asked.only:
        _print_peak_memory(asked.only, config, asked)
        return
    tokens = asked.rows * asked.length
    sides = {name: _prepare(name, config, asked) for name in _names(asked.compiled)}
    for step in sides.values():
        step()
    turns = [_turn(config, tokens, sides) for _ in range(asked.turns)]
    flops = flops_per_token(config, asked.length) * tokens
    low, full = (statistics.median(turn[name] for turn in turns) for name in ("bfloat16", "float32"))
    print(f"{asked.recipe.stem}, {asked.rows} x {asked.length} tokens, {asked.threads} threads, {asked.turns} turns")
    print(f"bare products: {low / 1e9:,.0f} GFLOP/s in bfloat16, {full / 1e9:,.0f} in float32")
    print(f"{'':22}{'s a step':>10}{'tokens/s':>10}{'of limit':>10}{'times transformers':>20}{'peak GiB':>10}")
    for name in sides:
        seconds = statistics.median(turn[name] for turn in turns)
        share = statistics.median(flops / turn[name] / turn["bfloat16"] for turn in turns)
        times = statistics.median(turn["transformers"] / turn[name] for turn in turns)
        peak = _peak_memory(name) / 2**30
        print(f"{name:22}{seconds:>10.3f}{tokens / seconds:>10,.0f}{share:>10.2f}{times:>20.2f}{peak:>10.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--rows", type=int, default=4, help="sequences in a step")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="transformers under torch.compile too")
    parser.add_argument("--only", choices=_names(True), help="print this side's peak memory, in bytes")
    return parser.parse_args()


def _names(compiled: bool) -> list[str]:
    return ["transformers", *(["transformers-compiled"] if compiled else []), "keylm", "keylm-muon"]


def _turn(config: ModelConfig, tokens: int, sides: dict[str, Step]) -> dict[str, float]:
    """Products per second by dtype, and seconds of a step by side."""
    rates = {name: matmul_flops_per_second(config, tokens, getattr(torch, name)) for name in ("bfloat16", "float32")}
    return rates | {name: _seconds(step) for name, step in sides.items()}


def _seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _prepare(name: str, config: ModelConfig, asked: argparse.Namespace) -> Step:
    rows = torch.randint(config.vocab_size, (asked.rows, asked.length + 1), generator=torch.Generator().manual_seed(0))
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].contiguous()
    if name.startswith("transformers"):
        return _transformers_step(config, tokens, targets, compiled=name.endswith("compiled"))
    return _keylm_step(config, tokens, targets, OptimizerConfig(kind="muon" if name.endswith("muon") else "adamw"))


def _keylm_step(config: ModelConfig, tokens: torch.Tensor, targets: torch.Tensor, settings: OptimizerConfig) -> Step:
    keep_freed_memory()
    model = init_model(config, seed=0)
    model.compute_dtype = torch.bfloat16
    optimizer = Optimizer(model, settings, tokens.numel())

    def step() -> None:
        (model.loss(tokens, targets) / targets.numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1.0)

    return step


def _transformers_step(config: ModelConfig, tokens: torch.Tensor, targets: torch.Tensor, compiled: bool) -> Step:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = Qwen3Config(**config.model_dump(), tie_word_embeddings=False, use_cache=False)
    model = Qwen3ForCausalLM(sizes)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(tokens).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _print_peak_memory(name: str, config: ModelConfig, asked: argparse.Namespace) -> None:
    step = _prepare(name, config, asked)
    step()
    step()
    print(peak_memory_bytes())


def _peak_memory(name: str) -> int:
    """Bytes that two steps of a side hold at most, in a process of its own."""
    command = [sys.executable, *sys.argv, "--only", name]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
