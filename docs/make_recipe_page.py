"""Write docs/recipe.md from the fields of the recipe: `python docs/make_recipe_page.py > docs/recipe.md`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from keylm.recipe import Recipe
from keylm.recipe.base import Config
from keylm.recipe.data import CleanConfig, DataConfig
from keylm.recipe.dpo import DpoConfig
from keylm.recipe.eval import EvalConfig
from keylm.recipe.export import ExportConfig
from keylm.recipe.grpo import GrpoConfig
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.recipe.prepare import PrepareConfig
from keylm.recipe.sft import SftConfig
from keylm.recipe.sources import (
    BacktranslationConfig,
    BaseSourceConfig,
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    TopicsConfig,
    TyposConfig,
)
from keylm.recipe.tokenizer import TokenizerConfig
from keylm.recipe.train import PhaseConfig, TrainConfig

SECTIONS: dict[str, type[Config]] = {
    "The whole recipe": Recipe,
    "`model`": ModelConfig,
    "`tokenizer`": TokenizerConfig,
    "`data`": DataConfig,
    "`data.clean`": CleanConfig,
    "Every source": BaseSourceConfig,
    "Sources of type `files`": FilesConfig,
    "Sources of type `hub`": HubConfig,
    "Sources of type `installed-docs`": InstalledDocsConfig,
    "Sources of type `instructions`": InstructionsConfig,
    "Sources of type `topics`": TopicsConfig,
    "Sources of type `repetition`": RepetitionConfig,
    "Sources of type `typos`": TyposConfig,
    "Sources of type `backtranslation`": BacktranslationConfig,
    "Sources of type `constrained-chat`": ConstrainedChatConfig,
    "`prepare`": PrepareConfig,
    "`train`": TrainConfig,
    "`train.optimizer`": OptimizerConfig,
    "`train.phases`": PhaseConfig,
    "`sft`": SftConfig,
    "`dpo`": DpoConfig,
    "`grpo`": GrpoConfig,
    "`eval`": EvalConfig,
    "`export`": ExportConfig,
}

HEAD = """# The recipe

A recipe is one YAML file that specifies everything about a model. A key that it leaves out has the default given here.
A key that is not listed here is an error. A run keeps its whole recipe, defaults included, in `recipe.yaml`.

Any field can be changed on the command line: `--set train.tokens=2e6`. Sources are addressed by their name:
`--set data.sources.wikipedia.weight=0.2`.

This page is generated from the fields by `docs/make_recipe_page.py`.
"""


def page() -> str:
    """The whole page, as Markdown."""
    return HEAD + "".join(_section(title, config) for title, config in SECTIONS.items())


def _section(title: str, config: type[Config]) -> str:
    """A heading, the docstring, and a table of the fields that the section does not share with its base."""
    note = ""
    shared: dict[str, Any] = {}
    if config is SftConfig:
        note, shared = "\nAll keys of `train`, and these or with these defaults:\n", TrainConfig.model_fields
    elif issubclass(config, BaseSourceConfig) and config is not BaseSourceConfig:
        note = "\nThe keys of every source, and these:\n"
        # The heading gives the type.
        shared = {**BaseSourceConfig.model_fields, "type": config.model_fields["type"]}
    rows = [
        f"| `{name}` | {_default(field)} | {_one_line(field.description)} |\n"
        for name, field in config.model_fields.items()
        if name not in shared or field.description != shared[name].description
    ]
    if not rows:
        return f"\n## {title}\n\n{_one_line(config.__doc__)} No keys but those of every source.\n"
    table = "| key | default | meaning |\n|---|---|---|\n" + "".join(rows)
    return f"\n## {title}\n\n{_one_line(config.__doc__)}\n{note}\n{table}"


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "see the meaning"
    if field.default is PydanticUndefined:
        return "required"
    return "its own defaults" if isinstance(field.default, BaseModel) else f"`{field.default!r}`"


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
