"""Compare a training step with transformers and with the machine's matmul peak: `benchmarks/train_step.py RECIPE`.

Everything is measured in one process in turns, and compared within a turn, so that a busy neighbor slows both sides of
a comparison; medians over turns are shown. MFU is relative to the measured rate of bare matrix products at the model's
own shapes (`keylm.model.flops.matmul_flops_per_second`). The baseline is transformers' `Qwen3ForCausalLM` with bfloat16
autocast and fused AdamW, with the same sizes, batch and gradient clipping (and, since they share the process, KeyLM's
allocator settings). Peak memory is that of two steps in a process of their own.
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
from keylm.model.device import compile_layers
from keylm.model.flops import flops_per_token, matmul_flops_per_second
from keylm.model.initialization import init_model
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.optimizer import Optimizer

Step = Callable[[], None]


def main() -> None:
    """Print a line per variant: seconds per step, tokens per second, MFU, speed-up over transformers, peak memory."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    config = load_recipe(options.recipe).model
    if options.only:
        _print_peak_memory(options.only, config, options)
        return
    tokens = options.rows * options.length
    steps = {name: make_step(name, config, options.rows, options.length) for name in _variants(options.compiled)}
    # Warm up: the first step compiles and allocates.
    for step in steps.values():
        step()
    turns = [_measure_turn(config, tokens, steps) for _ in range(options.turns)]
    flops = flops_per_token(config, options.length) * tokens
    bfloat16_peak, float32_peak = (statistics.median(turn[name] for turn in turns) for name in ("bfloat16", "float32"))
    batch = f"{options.rows} x {options.length} tokens"
    print(f"{options.recipe.stem}, {batch}, {options.threads} threads, {options.turns} turns")
    print(f"matmul peak: {bfloat16_peak / 1e9:,.0f} GFLOP/s in bfloat16, {float32_peak / 1e9:,.0f} in float32")
    print(f"{'':22}{'s/step':>10}{'tokens/s':>10}{'MFU':>10}{'speed-up':>10}{'peak GiB':>10}")
    for name in steps:
        seconds = statistics.median(turn[name] for turn in turns)
        mfu = statistics.median(flops / turn[name] / turn["bfloat16"] for turn in turns)
        speedup = statistics.median(turn["transformers"] / turn[name] for turn in turns)
        # In a process of its own, which this same script starts.
        command = [sys.executable, *sys.argv, "--only", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        peak_gib = int(output.split()[-1]) / 2**30
        print(f"{name:22}{seconds:>10.3f}{tokens / seconds:>10,.0f}{mfu:>10.2f}{speedup:>10.2f}{peak_gib:>10.2f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--rows", type=int, default=4, help="sequences in a step")
    parser.add_argument("--length", type=int, default=512, help="tokens in a sequence")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compiled", action="store_true", help="also transformers under torch.compile")
    parser.add_argument("--only", choices=_variants(True), help="print this variant's peak memory, in bytes")
    return parser.parse_args()


def _variants(compiled: bool) -> list[str]:
    return ["transformers", *(["transformers-compiled"] if compiled else []), "keylm", "keylm-muon"]


def _measure_turn(config: ModelConfig, tokens: int, steps: dict[str, Step]) -> dict[str, float]:
    """The matmul peak by dtype, and the seconds of a step by variant."""
    rates = {name: matmul_flops_per_second(config, tokens, getattr(torch, name)) for name in ("bfloat16", "float32")}
    return rates | {name: _seconds(step) for name, step in steps.items()}


def _seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def make_step(
    name: str, config: ModelConfig, rows: int, length: int, num_micro_batches: int = 1, device: str = "cpu"
) -> Step:
    """An optimizer step of a variant on random tokens.

    Args:
        name: `transformers`, `transformers-compiled`, `keylm` or `keylm-muon`.
        config: the model.
        rows: sequences in a micro-batch.
        length: tokens in a sequence.
        num_micro_batches: forward and backward passes per step.
        device: where to compute.
    """
    stream = torch.randint(config.vocab_size, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    tokens, targets = stream[:, :-1].contiguous().to(device), stream[:, 1:].contiguous().to(device)
    if name.startswith("transformers"):
        return _transformers_step(config, tokens, targets, num_micro_batches, compiled=name.endswith("compiled"))
    optimizer_config = OptimizerConfig(type="muon" if name.endswith("muon") else "adamw")
    return _keylm_step(config, tokens, targets, num_micro_batches, optimizer_config)


def _keylm_step(
    config: ModelConfig,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    num_micro_batches: int,
    optimizer_config: OptimizerConfig,
) -> Step:
    keep_freed_memory()
    model = init_model(config, seed=0).to(tokens.device)
    model.compute_dtype = torch.bfloat16
    compile_layers(model.model.layers, tokens.device)
    optimizer = Optimizer(model, optimizer_config, tokens.numel())

    def step() -> None:
        for _ in range(num_micro_batches):
            (model.loss(tokens, targets) / (targets.numel() * num_micro_batches)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(1.0)
        optimizer.zero_grad()

    return step


def _transformers_step(
    config: ModelConfig, tokens: torch.Tensor, targets: torch.Tensor, num_micro_batches: int, compiled: bool
) -> Step:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = Qwen3Config(**config.model_dump(exclude={"initialization"}), tie_word_embeddings=False, use_cache=False)
    model = Qwen3ForCausalLM(sizes).to(tokens.device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        for _ in range(num_micro_batches):
            with torch.autocast(tokens.device.type, torch.bfloat16):
                logits = forward(tokens).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
            (loss / num_micro_batches).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def _print_peak_memory(name: str, config: ModelConfig, options: argparse.Namespace) -> None:
    step = make_step(name, config, options.rows, options.length)
    step()
    step()
    print(peak_memory_bytes())


if __name__ == "__main__":
    main()
