"""Peak learning rates, derived from width and batch, so that a recipe of another size needs no tuning.

Roles of parameters: `hidden` matrices, the `embedding`, the `head`, the `norm` vectors. The rules:

* Muon's update has a spectral norm of `sqrt(max(1, rows / columns))` whatever the width: its rate is the same for all
  (Yang et al. 2023, "A Spectral Condition for Feature Learning").
* AdamW's rate is the same for all widths where a row is as wide as one token (embedding, norms), and falls with the
  width where a sum runs over it (head, and hidden matrices under AdamW): μP's rules (Yang et al. 2022, "Tensor
  Programs V").
* All grow with the square root of the batch while its gradient is mostly noise, and no more when it is not (McCandlish
  et al. 2018, "An Empirical Model of Large-Batch Training"; Malladi et al. 2022, "On the SDEs and Scaling Rules for
  Adaptive Gradient Algorithms").

The constants were measured at a width of 256 and 4,096 tokens a step (docs/log.md).
"""

from __future__ import annotations

import math

from keylm.recipe.optimizer import OptimizerConfig

_WIDTH = 256
_BATCH_TOKENS = 4096
_NOISE_TOKENS = 32_768
"""Batch at which noise and signal of the gradient are taken to be equal: rates measured at 1,024 to 16,384 tokens grow
nearly as far as its square root lets them, and customary rates for half a million tokens bound it from above."""
_MUON = 0.01
_ADAMW = {"hidden": 1e-3, "embedding": 0.03, "head": 4e-3, "norm": 1e-3}


def peak_learning_rates(settings: OptimizerConfig, hidden_size: int, batch_tokens: int) -> dict[str, float]:
    """Peak learning rate by role; those that the recipe gives are taken as they are."""
    narrowness = _WIDTH / hidden_size
    derived = _ADAMW | {"hidden": _ADAMW["hidden"] * narrowness, "head": _ADAMW["head"] * narrowness}
    if settings.type == "muon":
        derived["hidden"] = _MUON
    factor = settings.learning_rate_scale * _growth(batch_tokens)
    return {role: rate * factor for role, rate in derived.items()} | dict(settings.learning_rates)


def _growth(batch_tokens: int) -> float:
    """1 at `_BATCH_TOKENS`, and at most 3."""
    return math.sqrt((1 + _NOISE_TOKENS / _BATCH_TOKENS) / (1 + _NOISE_TOKENS / batch_tokens))
