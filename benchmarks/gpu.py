"""Prove training on a GPU, and measure it: `python benchmarks/gpu.py reference | check | speed`.

    reference FILE    what the CPU computes with a small model: losses and gradients, in float32 and bfloat16
    check FILE        the same on this machine's GPU, and how far it is from that; exit code 1 if too far
    speed RECIPE      tokens per second by size of the micro-batch, beside transformers, eager and compiled

`benchmarks/gpu_drive.py` runs both, and trains. Without a GPU, all of it runs on the CPU, as a rehearsal.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from train_step import make_step

from keylm.common.hardware import reset_peak_memory
from keylm.model.device import get_device, peak_memory_bytes, use_deterministic_algorithms
from keylm.model.flops import flops_per_token
from keylm.model.initialization import init_model
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.distributed import DistContext, parallelize
from keylm.train.optimizer import Optimizer

CONFIG = ModelConfig(
    # Not a multiple of 64, so that logits are padded.
    vocab_size=1004,
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=64,
    intermediate_size=320,
)
"""The small model of `reference` and `check`."""
ROWS, LENGTH, STEPS = 4, 256, 20
"""Its batch, and the steps that it is trained for."""
Observations = dict[str, Tensor]
"""Losses (STEPS,) and gradients (parameters,) by what was computed."""


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, run in (("reference", reference), ("check", check)):
        command = commands.add_parser(name)
        command.add_argument("file", type=Path)
        command.set_defaults(run=run)
    command = commands.add_parser("speed")
    command.add_argument("recipe", type=Path)
    command.add_argument("--micro-batches", type=int, nargs="+", default=[16_384, 32_768, 65_536, 131_072])
    command.add_argument("--peak", type=float, default=989, help="TFLOP/s of the data sheet (default: an H100's 989)")
    command.add_argument("--turns", type=int, default=3, help="steps, of which the median counts")
    command.add_argument("--json", type=Path, help="write tokens per second here, by variant and micro-batch")
    command.add_argument("--profile", type=Path, help="write the profile of one of KeyLM's steps here")
    command.set_defaults(run=speed)
    options = parser.parse_args()
    sys.exit(options.run(options))


def reference(options: argparse.Namespace) -> int:
    """Write what the CPU computes."""
    save_file(observe(torch.device("cpu")), options.file)
    return 0


def check(options: argparse.Namespace) -> int:
    """Print how far this machine's device is from the reference; 1 if a bound is exceeded."""
    device = get_device()
    rows = [*_distances(load_file(options.file), observe(device)), ("weights changed by a resume", _resume(device), 0)]
    print(f"| {device.type} against the reference | measured | bound | |\n|---|---|---|---|")
    for name, measured, bound in rows:
        print(f"| {name} | {measured:.2g} | {bound:.2g} | {'ok' if measured <= bound else 'TOO FAR'} |")
    return int(any(not measured <= bound for _, measured, bound in rows))


def observe(device: torch.device) -> Observations:
    """The first gradient and the losses of `STEPS` steps, by dtype, with and without documents, by optimizer."""
    found: Observations = {}
    for dtype in (torch.float32, torch.bfloat16):
        for documents in ("", ", documents"):
            name = str(dtype).removeprefix("torch.") + documents
            for optimizer in ("adamw", "muon"):
                training = _Training(device, dtype, bool(documents), optimizer)
                found[f"{name}, {optimizer}"] = torch.tensor([training.step(number) for number in range(STEPS)])
            found[f"{name}, gradient"] = training.first_gradient
    return found


def _distances(expected: Observations, found: Observations) -> Iterator[tuple[str, float, float]]:
    """What is compared, how far apart it is, and how far it may be."""
    for documents in ("", ", documents"):
        exact, low = f"float32{documents}", f"bfloat16{documents}"
        adamw, muon = (expected[f"{exact}, {name}"] - found[f"{exact}, {name}"] for name in ("adamw", "muon"))
        yield f"{exact}: first loss, nats", adamw[0].abs().item(), 1e-5
        yield f"{exact}: adamw losses, nats", adamw.abs().max().item(), 1e-3
        yield f"{exact}: muon losses, nats", muon.abs().max().item(), 3e-3
        gradient = expected[f"{exact}, gradient"]
        own, cpu, rounded = (
            ((other - gradient).norm() / gradient.norm()).item()
            for other in (found[f"{exact}, gradient"], expected[f"{low}, gradient"], found[f"{low}, gradient"])
        )
        yield f"{exact}: gradient, relative", own, 1e-4
        yield f"{low}: gradient, relative", rounded, 1.5 * cpu
        for name in ("adamw", "muon"):
            apart = (found[f"{low}, {name}"] - expected[f"{exact}, {name}"]).abs().max().item()
            yield f"{low}: {name} losses, nats from float32's", apart, 0.02


class _Training:
    """The small model in training, on batches that depend on the step alone."""

    def __init__(self, device: torch.device, dtype: torch.dtype, with_documents: bool, optimizer: str) -> None:
        self.device, self.with_documents = device, with_documents
        self.model = init_model(CONFIG, seed=0)
        self.model.compute_dtype = dtype
        self.objective = parallelize(self.model, "ddp", DistContext(device=device))
        self.optimizer = Optimizer(self.model, OptimizerConfig(type=optimizer), ROWS * LENGTH)
        self.first_gradient = torch.empty(0)

    def step(self, number: int) -> float:
        """Train on the batch of step `number`, and return its loss in nats per token."""
        generator = torch.Generator().manual_seed(number)
        # Squared, so that some tokens are much more frequent than others, and there is something to learn.
        stream = (torch.rand(ROWS, LENGTH + 1, generator=generator) ** 2 * CONFIG.vocab_size).long()
        starts = torch.rand(ROWS, LENGTH, generator=generator) < 0.02
        inputs = [stream[:, :-1], stream[:, 1:], *([starts.cumsum(1)] if self.with_documents else [])]
        loss = self.objective(*(tensor.contiguous().to(self.device) for tensor in inputs)) / (ROWS * LENGTH)
        loss.backward()
        if number == 0:
            gradients = [parameter.grad for parameter in self.model.parameters()]
            self.first_gradient = torch.cat([grad.flatten().cpu() for grad in gradients if grad is not None])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step(1.0)
        self.optimizer.zero_grad()
        return loss.item()


def _resume(device: torch.device) -> int:
    """Weights that differ between a training and the same one resumed halfway, under deterministic algorithms."""
    use_deterministic_algorithms()
    whole, first, second = (_Training(device, torch.bfloat16, True, "muon") for _ in range(3))
    for number in range(STEPS):
        whole.step(number)
        if number < STEPS // 2:
            first.step(number)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict({name: tensor.cpu() for name, tensor in first.optimizer.state_dict().items()})
    for number in range(STEPS // 2, STEPS):
        second.step(number)
    pairs = zip(whole.model.parameters(), second.model.parameters(), strict=True)
    return sum(int((one != other).sum()) for one, other in pairs)


def speed(options: argparse.Namespace) -> int:
    """Print the tokens per second of whole optimizer steps, with as many micro-batches as the recipe's batch has."""
    recipe, device = load_recipe(options.recipe), get_device()
    length = recipe.train.sequence_length
    flops = flops_per_token(recipe.model, length)
    rates: dict[str, dict[int, float]] = {}
    print("| | micro-batch, tokens | tokens/s | share of peak | peak memory, GiB |\n|---|---|---|---|---|")
    for name in ("keylm-muon", "keylm", "transformers-compiled", "transformers"):
        for micro_batch_tokens in options.micro_batches:
            _reset(device)
            num_micro_batches = max(1, recipe.train.batch_tokens // micro_batch_tokens)
            try:
                step = make_step(
                    name, recipe.model, micro_batch_tokens // length, length, num_micro_batches, str(device)
                )
                seconds = _median_seconds(step, options.turns, device)
            except torch.OutOfMemoryError:
                print(f"| {name} | {micro_batch_tokens:,} | out of memory | | |", flush=True)
                continue
            rate = num_micro_batches * micro_batch_tokens / seconds
            share, memory = rate * flops / (options.peak * 1e12), peak_memory_bytes(device) / 2**30
            print(f"| {name} | {micro_batch_tokens:,} | {rate:,.0f} | {share:.1%} | {memory:.1f} |", flush=True)
            rates.setdefault(name, {})[micro_batch_tokens] = rate
            # Written at once: whatever ends this process leaves what it has measured.
            if options.json:
                options.json.write_text(json.dumps(rates, indent=2) + "\n", encoding="utf-8")
            if options.profile and name.startswith("keylm"):
                options.profile.write_text(_profile(step), encoding="utf-8")
    return 0


def _reset(device: torch.device) -> None:
    """Forget what was compiled, cached and counted for the variant before."""
    torch._dynamo.reset()
    reset_peak_memory()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _median_seconds(step: Callable[[], None], turns: int, device: torch.device) -> float:
    durations = []
    # The first step compiles and allocates.
    for _ in range(turns + 1):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations[1:])


def _profile(step: Callable[[], None]) -> str:
    with torch.profiler.profile() as profile:
        step()
    sort_by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return profile.key_averages().table(sort_by=sort_by, row_limit=40)


if __name__ == "__main__":
    main()
