"""The recipe: everything about a model, as one typed and validated object.

Field names follow transformers where transformers has them. Every field has a docstring with its
unit; `docs/recipe.md` is generated from them.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from keylm.recipe.base import Config, Count
from keylm.recipe.data import DataConfig
from keylm.recipe.dpo import DpoConfig
from keylm.recipe.eval import EvalConfig
from keylm.recipe.export import ExportConfig
from keylm.recipe.grpo import GrpoConfig
from keylm.recipe.model import ModelConfig
from keylm.recipe.prepare import PrepareConfig
from keylm.recipe.sft import SftConfig
from keylm.recipe.sources import SourceConfig
from keylm.recipe.tokenizer import TokenizerConfig
from keylm.recipe.train import TrainConfig, check_phases

MIXTURE_STAGES = ("pretrain", "sft")
"""The stages that train on a mixture of sources, which `prepare` turns into tokens; in this order."""


class Recipe(Config):
    """Everything about a model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    """Name of the model, its run folder and its files."""
    title: str = ""
    """Display name of the model, on its card and its page (default: the name)."""
    seed: Count = 0
    """Seed of the weights, the order of the data and the generators."""
    model: ModelConfig = ModelConfig()
    """The decoder's sizes."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """How the vocabulary is trained."""
    data: DataConfig = DataConfig()
    """The pretraining text."""
    prepare: PrepareConfig = PrepareConfig()
    """How the text is prepared: by which processes, on which machines."""
    train: TrainConfig = TrainConfig()
    """Pretraining."""
    sft: SftConfig = SftConfig()
    """Supervised fine-tuning."""
    dpo: DpoConfig | None = None
    """Preference tuning; skipped by default, `dpo: {}` enables it."""
    grpo: GrpoConfig | None = None
    """Reinforcement learning; skipped by default, `grpo: {}` enables it."""
    eval: EvalConfig = EvalConfig()
    """Evaluation."""
    export: ExportConfig = ExportConfig()
    """Release."""

    @model_validator(mode="after")
    def _check_sections(self) -> Recipe:
        for section, training in (("train", self.train), ("sft", self.sft)):
            if training.sequence_length > self.model.max_position_embeddings:
                raise ValueError(f"{section}.sequence_length is longer than model.max_position_embeddings")
        # Here, because a phase names sources, and those of pretraining stand in `data`.
        check_phases("train", self.train.phases, self.data.sources)
        check_phases("sft", self.sft.phases, self.sft.sources)
        has_examples = any(source.weight for source in self.sft.sources if source.makes_examples)
        for section in ("dpo", "grpo"):
            if getattr(self, section) and not has_examples:
                raise ValueError(f"{section} needs a source of type instructions or constrained-chat in sft.sources")
        return self

    def training(self, stage: str) -> TrainConfig:
        """Settings of `pretrain` or `sft`."""
        return {"pretrain": self.train, "sft": self.sft}[stage]

    def sources_of(self, stage: str) -> list[SourceConfig]:
        """The sources that `pretrain` or `sft` trains on."""
        return {"pretrain": self.data.sources, "sft": self.sft.sources}[stage]
