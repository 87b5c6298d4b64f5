"""The learning rate over training."""

from __future__ import annotations

import math

from keylm.recipe.train import TrainConfig


def lr_factor(step: int, training: TrainConfig) -> float:
    """Learning rate of step number `step` as a share of its peak: linear warm-up, constant, and a fall to zero in the
    form of `decay` (the warmup-stable-decay schedule of Hu et al. 2024, "MiniCPM")."""
    steps = training.num_steps
    warmup = max(1, round(training.warmup_fraction * steps))
    decay = max(1, round(training.decay_fraction * steps))
    rising, left = (step + 1) / warmup, min(1.0, (steps - step) / decay)
    falling = left if training.decay == "linear" else (1 - math.cos(math.pi * left)) / 2
    return min(1.0, rising, falling)
