"""`grpo`: reinforcement learning with rule-based rewards."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from keylm.recipe.base import PositiveCount
from keylm.recipe.posttrain import PosttrainConfig


class GrpoConfig(PosttrainConfig):
    """Reinforcement learning by GRPO (Shao et al. 2024), with the instruction checks as the reward.

    The prompts are generated like those of the sources of type `instructions` and `constrained-chat` in `sft.sources`,
    in proportion to their weights.
    """

    renamed_keys: ClassVar[dict[str, str]] = {"answers": "num_generations"}

    steps: PositiveCount = 100
    """Optimizer steps, each on answers sampled from the weights before it."""
    batch_prompts: PositiveCount = 16
    """Prompts per step."""
    num_generations: int = Field(default=8, ge=2)
    """Answers sampled per prompt (the group): those above the group's mean reward become more likely."""
    micro_batch_answers: PositiveCount = 8
    """Answers per forward pass. Lower it if you run out of memory. They are padded to the longest of the step."""
    max_new_tokens: PositiveCount = 160
    """Tokens after which an answer is cut off; its reward is then zero."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of the answers."""

    @model_validator(mode="after")
    def _check_batch(self) -> GrpoConfig:
        if self.batch_answers % self.micro_batch_answers:
            raise ValueError("batch_prompts times num_generations must be a multiple of micro_batch_answers")
        return self

    # Under the name that all training sections use: `stages.num_steps` treats them alike.
    @property
    def num_steps(self) -> int:
        """Number of optimizer steps."""
        return self.steps

    @property
    def batch_answers(self) -> int:
        """Answers per optimizer step."""
        return self.batch_prompts * self.num_generations

    @property
    def num_answers(self) -> int:
        """Answers over all steps."""
        return self.steps * self.batch_answers
