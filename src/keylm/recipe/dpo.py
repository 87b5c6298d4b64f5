"""`dpo`: preference tuning."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from keylm.recipe.base import PositiveCount
from keylm.recipe.posttrain import PosttrainConfig


class DpoConfig(PosttrainConfig):
    """DPO (Rafailov et al. 2023) after SFT: a verified answer is preferred over a copy that violates one constraint.

    The pairs are generated from the sources of type `instructions` and `constrained-chat` in `sft.sources`, in
    proportion to their weights.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"pairs": "num_pairs"}

    num_pairs: PositiveCount = 2000
    """Number of preference pairs, each used once."""
    batch_pairs: PositiveCount = 32
    """Pairs per optimizer step."""
    micro_batch_pairs: PositiveCount = 4
    """Pairs per forward pass. Lower it if you run out of memory. Pairs are padded to the longest, so small
    micro-batches are also faster."""
    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the SFT weights (DPO's beta)."""
    sft_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss on the chosen answer, added to DPO's. Without it, both answers become less likely."""

    @model_validator(mode="after")
    def _check_batch(self) -> DpoConfig:
        if self.batch_pairs % self.micro_batch_pairs:
            raise ValueError("batch_pairs must be a multiple of micro_batch_pairs")
        return self

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return -(-self.num_pairs // self.batch_pairs)
