"""`optimizer`: the update rule and its learning rates."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat

from keylm.recipe.base import Config


class OptimizerConfig(Config):
    """AdamW throughout, or Muon for the hidden matrices and AdamW for the rest."""

    renamed_keys: ClassVar[dict[str, str]] = {"kind": "type"}

    type: Literal["adamw", "muon"] = "muon"
    """`muon`: hidden matrices by Muon (Jordan et al. 2024); embeddings, head and norms by AdamW."""
    learning_rate_scale: float = Field(default=1.0, gt=0)
    """Multiplies the peak learning rates, which are derived from width and batch size (docs/train.md). The only
    learning rate setting that most recipes need."""
    learning_rates: dict[Literal["hidden", "embedding", "head", "norm"], PositiveFloat] = {}
    """Peak learning rates by parameter role, used as given instead of the derived ones."""
    momentum: float = Field(default=0.95, ge=0, lt=1)
    """Muon's Nesterov momentum."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    eps: float = Field(default=1e-8, gt=0)
    """AdamW's epsilon."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decoupled weight decay, applied to matrices only."""
