"""The learning rate schedule."""

from __future__ import annotations

import math

from keylm.recipe.train import TrainConfig


def lr_factor(step: int, config: TrainConfig) -> float:
    """Learning rate of a step, counted from 0, as a fraction of its peak.

    Linear warmup, a constant phase, and a decay to zero, linear or as half a cosine (the warmup-stable-decay schedule
    of Hu et al. 2024, "MiniCPM").
    """
    num_steps = config.num_steps
    num_warmup = max(1, round(config.warmup_fraction * num_steps))
    num_decay = max(1, round(config.decay_fraction * num_steps))
    # Both begin or end one step away from zero: a rate of zero would waste its batch.
    warmup, remaining = (step + 1) / num_warmup, min(1.0, (num_steps - step) / num_decay)
    decay = remaining if config.decay == "linear" else (1 - math.cos(math.pi * remaining)) / 2
    return min(1.0, warmup, decay)
