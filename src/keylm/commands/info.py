"""What a recipe means: parameters, tokens, operations, memory, and time on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.table import Table

from keylm.common.arrays import IGNORE_INDEX
from keylm.common.console import output
from keylm.common.hardware import compute_dtype
from keylm.model.flops import flops_per_token, num_parameters
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.recipe import Recipe, load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.train.optimizer import Optimizer

_BYTES_PER_PARAMETER = {"weights (float32)": 4, "gradients (float32)": 4, "optimizer (float32)": 8}
_MEASURED_TOKENS = 4096


def show_info(path: Path, overrides: list[str] | None = None) -> None:
    """Print what the recipe at `path` means; measures a few short training steps."""
    chosen = load_recipe(path / "recipe.yaml" if path.is_dir() else path, overrides)
    model = init_model(chosen.model, chosen.seed)
    output.print(_parameters(model, chosen))
    output.print(_memory(model, chosen.train))
    output.print(_training(model, chosen))


def activation_bytes(config: ModelConfig, training: TrainConfig) -> int:
    """Bytes that one forward pass keeps for its backward pass, roughly: what each layer's products and norms read."""
    tokens = min(training.micro_batch_tokens, training.batch_tokens)
    heads = config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    per_layer = 8 * config.hidden_size + 6 * heads + 5 * config.intermediate_size
    size = 2 if compute_dtype(training.compute_dtype) == torch.bfloat16 else 4
    return tokens * config.num_hidden_layers * per_layer * size


def seconds_per_token(model: KeyLM, training: TrainConfig) -> float:
    """Measured time of a training step on random tokens, per token: the faster of two steps after one to warm up."""
    model.compute_dtype = compute_dtype(training.compute_dtype)
    optimizer = Optimizer(model, training.optimizer, training.batch_tokens)
    length = min(training.sequence_length, 512)
    tokens = torch.randint(model.config.vocab_size, (_MEASURED_TOKENS // length, length))
    return min(_step(model, optimizer, tokens) for _ in range(3)) / tokens.numel()


def _step(model: KeyLM, optimizer: Optimizer, tokens: torch.Tensor) -> float:
    start = time.perf_counter()
    targets = tokens.roll(-1, dims=1)
    targets[:, -1] = IGNORE_INDEX
    model.loss(tokens, targets).backward()  # type: ignore[no-untyped-call]
    optimizer.step(0.0)
    optimizer.zero_grad()
    return time.perf_counter() - start


def _parameters(model: KeyLM, chosen: Recipe) -> Table:
    table = _table(f"{chosen.title or chosen.name}: parameters")
    config = chosen.model
    layers = sum(p.numel() for p in model.model.layers.parameters())
    table.add_row(
        "embedding", f"{config.vocab_size:,} x {config.hidden_size}", f"{config.vocab_size * config.hidden_size:,}"
    )
    table.add_row("layers", f"{config.num_hidden_layers} x {layers // config.num_hidden_layers:,}", f"{layers:,}")
    table.add_row("last norm", "", f"{config.hidden_size:,}")
    table.add_row(
        "head", f"{config.hidden_size} x {config.vocab_size:,}", f"{config.vocab_size * config.hidden_size:,}"
    )
    table.add_row("[bold]all[/]", "", f"[bold]{num_parameters(model):,}[/]")
    return table


def _memory(model: KeyLM, training: TrainConfig) -> Table:
    table = _table("memory in pretraining, about")
    parameters = num_parameters(model)
    total = activation_bytes(model.config, training)
    table.add_row("activations", f"{min(training.micro_batch_tokens, training.batch_tokens):,} tokens", _gib(total))
    for name, size in _BYTES_PER_PARAMETER.items():
        total += parameters * size
        table.add_row(name, "", _gib(parameters * size))
    table.add_row("[bold]all[/]", "dial: train.micro_batch_tokens", f"[bold]{_gib(total)}[/]")
    return table


def _training(model: KeyLM, chosen: Recipe) -> Table:
    table = _table("training on this machine")
    per_token = seconds_per_token(model, chosen.train)
    dtype = compute_dtype(chosen.train.compute_dtype)
    for name, training in (("pretrain", chosen.train), ("sft", chosen.sft)):
        flops = flops_per_token(chosen.model, training.sequence_length) * training.tokens
        table.add_row(f"{name}: tokens", f"{training.num_steps:,} steps", f"{training.tokens:,}")
        table.add_row(f"{name}: operations", "", f"{flops:.2e}")
        table.add_row(
            f"{name}: time", f"{1 / per_token:,.0f} tokens/s measured", _duration(training.tokens * per_token)
        )
    if chosen.dpo:
        table.add_row("dpo: pairs", f"{chosen.dpo.num_steps:,} steps", f"{chosen.dpo.num_pairs:,}")
    if chosen.grpo:
        table.add_row("grpo: answers", f"{chosen.grpo.steps:,} steps", f"{chosen.grpo.num_answers:,}")
    table.add_row("precision of products", "", str(dtype).removeprefix("torch."))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
    table.add_column()
    table.add_column(style="dim")
    table.add_column(justify="right")
    return table


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def _duration(seconds: float) -> str:
    for unit, size in (("years", 365 * 86_400), ("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
