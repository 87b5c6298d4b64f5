"""A question before a training that would take days: many find out too late what a recipe asks of their machine."""

from __future__ import annotations

import sys

from rich.prompt import Confirm

from keylm.commands.info import format_duration
from keylm.common import ranks
from keylm.common.console import console
from keylm.common.errors import UserError
from keylm.common.hardware import compute_dtype
from keylm.model.device import get_device
from keylm.model.flops import flops_per_token, matmul_flops_per_second
from keylm.recipe import MIXTURE_STAGES, Recipe
from keylm.run import Run

_DAY = 86_400


def confirm_long_run(run: Run) -> None:
    """Ask before a training that takes more than a day is begun; without a terminal, only say how long it takes.

    Raises:
        UserError: the answer is no.
    """
    # What was begun was agreed to, and whoever uses torchrun has planned for it.
    if run.stage("pretrain").exists() or ranks.world_size() > 1:
        return
    seconds = least_seconds(run.recipe)
    if seconds < _DAY:
        return
    sentence = f"this recipe takes at least {format_duration(seconds)} on this machine (`keylm info` measures it)"
    if not sys.stdin.isatty():
        console.print(f"[yellow]![/] {sentence}", soft_wrap=True)
    elif not Confirm.ask(f"{sentence}. Start?", console=console, default=False):
        raise UserError("not started: `keylm new NAME --minutes N` writes a recipe that fits the time you have")


def least_seconds(recipe: Recipe) -> float:
    """Seconds that pretraining and SFT take if every operation runs at the measured peak of this machine's products."""
    flops = sum(
        flops_per_token(recipe.model, training.sequence_length) * training.tokens
        for training in map(recipe.training, MIXTURE_STAGES)
    )
    training = recipe.train
    micro_batch_tokens = min(training.micro_batch_tokens, training.batch_tokens)
    device = get_device()
    dtype = compute_dtype(training.compute_dtype, device)
    return flops / matmul_flops_per_second(recipe.model, micro_batch_tokens, dtype, device)
