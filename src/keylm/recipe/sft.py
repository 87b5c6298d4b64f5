"""`sft`: supervised fine-tuning on conversations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from keylm.recipe.base import PositiveCount
from keylm.recipe.sources import InstructionsConfig, SourceConfig, check_sources
from keylm.recipe.train import TrainConfig


def _default_sources() -> list[SourceConfig]:
    return [InstructionsConfig(name="instructions")]


class SftConfig(TrainConfig):
    """Supervised fine-tuning: packed conversations, with a loss on the assistant's tokens only."""

    sources: list[SourceConfig] = Field(default_factory=_default_sources)
    """The conversations. Plain text has no assistant turns and is rejected. Empty: the stage is skipped."""
    tokens: PositiveCount = 1_000_000
    """Length of training, in tokens; rounded up to whole steps."""
    packing: Literal["concat", "best_fit"] = "best_fit"
    """`best_fit` keeps conversations whole; `concat` would cut them anywhere."""
    intra_document_masking: bool = True
    """Restrict attention to the conversation."""

    @model_validator(mode="after")
    def _check_sources(self) -> SftConfig:
        check_sources(self.sources)
        return self
