"""Peak learning rates, derived from width and batch size, so that a recipe of another size needs no tuning.

Parameters have a role: `hidden` matrices, the `embedding`, the `head`, the `norm` vectors. The rules:

* Muon's update has a spectral norm of `sqrt(max(1, rows / columns))` at any width, so its rate does not depend on the
  width (Yang et al. 2023, "A Spectral Condition for Feature Learning").
* AdamW's rate does not depend on the width where each token reads one row (embedding, norms), and is inversely
  proportional to it where a product sums over the width (head, and hidden matrices under AdamW): the rules of μP (Yang
  et al. 2022, "Tensor Programs V").
* All rates grow with the square root of the batch size while the gradient is mostly noise, then level off (McCandlish
  et al. 2018, "An Empirical Model of Large-Batch Training"; Malladi et al. 2022, "On the SDEs and Scaling Rules for
  Adaptive Gradient Algorithms").

The constants were measured at a width of 256 and 4,096 tokens per step (docs/log.md).
"""

from __future__ import annotations

import math

from keylm.recipe.optimizer import OptimizerConfig

_WIDTH = 256
_BATCH_TOKENS = 4096
_NOISE_TOKENS = 32_768
"""Batch size at which noise and signal of the gradient are assumed to be equal. Rates measured at 1,024 to 16,384
tokens grow nearly with the square root, and customary rates at half a million tokens bound it from above."""
_MUON = 0.01
_ADAMW = {"hidden": 1e-3, "embedding": 0.03, "head": 4e-3, "norm": 1e-3}


def peak_learning_rates(settings: OptimizerConfig, hidden_size: int, batch_tokens: int) -> dict[str, float]:
    """Peak learning rate by role. Rates in `settings.learning_rates` are used as given."""
    narrowness = _WIDTH / hidden_size
    derived = _ADAMW | {"hidden": _ADAMW["hidden"] * narrowness, "head": _ADAMW["head"] * narrowness}
    if settings.type == "muon":
        derived["hidden"] = _MUON
    # 1 at `_BATCH_TOKENS`, and at most 3.
    growth = math.sqrt((1 + _NOISE_TOKENS / _BATCH_TOKENS) / (1 + _NOISE_TOKENS / batch_tokens))
    factor = settings.learning_rate_scale * growth
    return {role: rate * factor for role, rate in derived.items()} | dict(settings.learning_rates)
