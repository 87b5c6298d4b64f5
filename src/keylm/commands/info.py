"""`keylm info`: what a recipe costs in parameters, tokens, operations, memory, and time on this machine."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from rich.table import Table

from keylm.common.arrays import IGNORE_INDEX
from keylm.common.console import output
from keylm.common.hardware import compute_dtype, resident_memory_bytes
from keylm.common.units import gib
from keylm.model.flops import flops_per_token, num_parameters
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.recipe import Recipe, load_recipe
from keylm.recipe.model import ModelConfig
from keylm.recipe.train import TrainConfig
from keylm.run import Run, open_run
from keylm.stages import stages_of
from keylm.train.optimizer import Optimizer

_BYTES_PER_PARAMETER = {
    "weights (float32)": 4,
    "gradients (float32)": 4,
    "optimizer (float32)": 8,
    # Weights and optimizer state, which are copied before they are written in the background.
    "copy for a checkpoint": 12,
}
_MAX_MEASURED_TOKENS = 4096
"""Tokens of a measured training step, at most."""


def show_info(path: Path, overrides: list[str] | None = None) -> None:
    """Print what a recipe costs, and measure a few short training steps for the time.

    Args:
        path: A recipe or a run folder.
        overrides: Fields of the recipe to change, as `key.subkey=value`.

    Raises:
        UserError: the recipe cannot be read.
    """
    recipe = load_recipe(path, overrides)
    # Before there is a model: what Python and its libraries take in training, too.
    process_bytes = resident_memory_bytes()
    model = init_model(recipe.model, recipe.seed)
    output.print(_parameters_table(model, recipe))
    output.print(_memory_table(model, recipe.train, process_bytes))
    if path.is_dir():
        _show_measured_memory(open_run(path))
    output.print(_training_table(model, recipe))


def activation_bytes(config: ModelConfig, training: TrainConfig) -> int:
    """Estimate the memory of the activations that a forward pass keeps for its backward pass, in bytes.

    Counted are the inputs of each layer's matrix products and norms.
    """
    tokens = min(training.micro_batch_tokens, training.batch_tokens)
    heads = config.head_dim * (config.num_attention_heads + config.num_key_value_heads)
    per_layer = 8 * config.hidden_size + 6 * heads + 5 * config.intermediate_size
    size = 2 if compute_dtype(training.compute_dtype) == torch.bfloat16 else 4
    return tokens * config.num_hidden_layers * per_layer * size


def training_bytes(model: KeyLM, training: TrainConfig) -> int:
    """Estimate the memory of training: activations, weights, gradients and optimizer state, in bytes."""
    return activation_bytes(model.config, training) + num_parameters(model) * sum(_BYTES_PER_PARAMETER.values())


def seconds_per_token(model: KeyLM, training: TrainConfig) -> float:
    """Measure the time of a training step on random tokens, per token: the fastest of three steps."""
    model.compute_dtype = compute_dtype(training.compute_dtype)
    optimizer = Optimizer(model, training.optimizer, training.batch_tokens)
    length = min(training.sequence_length, 512)
    # A small batch costs more per token, because the optimizer's share is larger.
    num_rows = min(_MAX_MEASURED_TOKENS, training.batch_tokens) // length
    tokens = torch.randint(model.config.vocab_size, (num_rows, length))
    targets = tokens.roll(-1, dims=1)
    targets[:, -1] = IGNORE_INDEX
    durations: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        model.loss(tokens, targets).backward()  # type: ignore[no-untyped-call]
        # A learning rate of zero: the same work, and the weights stay.
        optimizer.step(0.0)
        optimizer.zero_grad()
        durations.append(time.perf_counter() - start)
    # The fastest, because the first step also compiles kernels, and other processes can only slow a step down.
    return min(durations) / tokens.numel()


def _parameters_table(model: KeyLM, recipe: Recipe) -> Table:
    config = recipe.model
    embedding = config.vocab_size * config.hidden_size
    layers = sum(parameter.numel() for parameter in model.model.layers.parameters())
    table = _table(f"{recipe.title or recipe.name}: parameters")
    table.add_row("embedding", f"{config.vocab_size:,} x {config.hidden_size}", f"{embedding:,}")
    table.add_row("layers", f"{config.num_hidden_layers} x {layers // config.num_hidden_layers:,}", f"{layers:,}")
    table.add_row("final norm", "", f"{config.hidden_size:,}")
    table.add_row("head", f"{config.hidden_size} x {config.vocab_size:,}", f"{embedding:,}")
    table.add_row("[bold]total[/]", "", f"[bold]{num_parameters(model):,}[/]")
    return table


def _memory_table(model: KeyLM, training: TrainConfig, process_bytes: int) -> Table:
    parameters = num_parameters(model)
    micro_batch = f"{min(training.micro_batch_tokens, training.batch_tokens):,} tokens"
    table = _table("Memory in pretraining (estimate)")
    table.add_row("Python and torch", "", gib(process_bytes))
    table.add_row("activations", micro_batch, gib(activation_bytes(model.config, training)))
    for name, bytes_per_parameter in _BYTES_PER_PARAMETER.items():
        table.add_row(name, "", gib(parameters * bytes_per_parameter))
    total = gib(process_bytes + training_bytes(model, training))
    table.add_row("[bold]total[/]", "lower with train.micro_batch_tokens", f"[bold]{total}[/]")
    return table


def _show_measured_memory(run: Run) -> None:
    """Print the peak memory of the stages that are done, as the report does."""
    done = [stage.name for stage in stages_of(run) if run.is_finished(stage.name) and not run.imported_from(stage.name)]
    if done:
        table = _table("Memory of the stages so far (measured peak)")
        for name in done:
            table.add_row(name, "", gib(run.metadata(name)["peak_memory_bytes"]))
        output.print(table)


def _training_table(model: KeyLM, recipe: Recipe) -> Table:
    per_token = seconds_per_token(model, recipe.train)
    table = _table("Training on this machine")
    for name, training in (("pretrain", recipe.train), ("sft", recipe.sft)):
        flops = flops_per_token(recipe.model, training.sequence_length) * training.tokens
        table.add_row(f"{name}: tokens", f"{training.num_steps:,} steps", f"{training.tokens:,}")
        table.add_row(f"{name}: operations", "", f"{flops:.2e} FLOP")
        duration = format_duration(training.tokens * per_token)
        table.add_row(f"{name}: time", f"{1 / per_token:,.0f} tokens/s measured", duration)
    if recipe.dpo:
        table.add_row("dpo: pairs", f"{recipe.dpo.num_steps:,} steps", f"{recipe.dpo.num_pairs:,}")
    if recipe.grpo:
        table.add_row("grpo: answers", f"{recipe.grpo.num_steps:,} steps", f"{recipe.grpo.num_answers:,}")
    table.add_row("compute dtype", "", str(compute_dtype(recipe.train.compute_dtype)).removeprefix("torch."))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    table.add_column(justify="right", no_wrap=True)
    return table


def format_duration(seconds: float) -> str:
    """A duration in the largest unit of which it has at least one, such as `2.5 hours`."""
    for unit, size in (("years", 365 * 86_400), ("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
