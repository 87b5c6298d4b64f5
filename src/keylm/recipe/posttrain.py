"""What the sections `dpo` and `grpo` have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from keylm.recipe.base import Config


class PosttrainConfig(Config):
    """Training by trl: AdamW with linear warmup and linear decay to zero."""

    renamed_keys: ClassVar[dict[str, str]] = {"gradient_clip": "max_grad_norm"}

    learning_rate: float = Field(default=1e-4, gt=0)
    """Peak learning rate of AdamW; models of billions of parameters need about a hundredth of it."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Fraction of the steps over which the learning rate rises linearly; it decays linearly to zero afterwards."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradient clipping: a gradient with a larger global norm is scaled down to this norm."""
    checkpoint_minutes: float = Field(default=10.0, gt=0)
    """Minutes between checkpoints; one is always written on Ctrl-C."""
