"""The cost of a checkpoint: `python benchmarks/checkpoint.py [RECIPE]` (default: the published model's sizes).

A save stops training while everything is copied in memory, and slows it down while a thread writes the copy. Both are
measured with a loop of matrix products in the place of training: the cost is the time of the products that were not
computed. The target is 2% of the time between two checkpoints; the exit code is 1 if it is missed.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from keylm.model.initialization import init_model
from keylm.recipe import load_recipe
from keylm.train.checkpoint import AsyncCheckpointer, Checkpoint
from keylm.train.distributed import SINGLE_PROCESS, full_cpu_state_dict
from keylm.train.optimizer import Optimizer


def main() -> None:
    """Print a line per save, and the share of training time that saving takes."""
    recipe = load_recipe(Path(sys.argv[1] if len(sys.argv) > 1 else "recipes/keylm-75m.yaml"))
    model = init_model(recipe.model, recipe.seed)
    optimizer = Optimizer(model, recipe.train.optimizer, recipe.train.batch_tokens)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step(1.0)
    interval = 60 * recipe.train.checkpoint_minutes
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = AsyncCheckpointer(Path(folder), keep=1, permanent_every=0)
        lost = [_measure_save(checkpointer, model, optimizer, step) for step in range(1, 4)]
    share = sorted(lost)[1] / interval
    print(f"{share:.2%} of the {interval:.0f} s between two checkpoints; target: at most 2%")
    sys.exit(share > 0.02)


def _measure_save(checkpointer: AsyncCheckpointer, model: torch.nn.Module, optimizer: Optimizer, step: int) -> float:
    """Seconds of training that a save costs."""
    deadline = time.perf_counter() + 3
    num_undisturbed, undisturbed_seconds = _count_matmuls(lambda: time.perf_counter() > deadline)
    start = time.perf_counter()
    weights = full_cpu_state_dict(model.state_dict(), SINGLE_PROCESS)
    state = full_cpu_state_dict(optimizer.state_dict(), SINGLE_PROCESS)
    copying = time.perf_counter() - start
    checkpointer.save(Checkpoint(step, weights, state, "", 0.0, 0))
    num_disturbed, writing = _count_matmuls(checkpointer.is_idle)
    lost = copying + writing - num_disturbed * undisturbed_seconds / num_undisturbed
    size = sum(tensor.nbytes for tensor in (*weights.values(), *state.values())) / 2**20
    print(f"{size:.0f} MiB: copied in {copying:.2f} s, written in {writing:.2f} s, {lost:.2f} s of training lost")
    return lost


def _count_matmuls(is_over: Callable[[], bool]) -> tuple[int, float]:
    """Compute matrix products until `is_over`; return their number and the seconds that they took."""
    x = torch.randn(512, 512)
    count, start = 0, time.perf_counter()
    while not is_over():
        x @ x
        count += 1
    return count, time.perf_counter() - start


if __name__ == "__main__":
    main()
