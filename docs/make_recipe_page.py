"""Write docs/recipe.md from the recipe's own fields: `python docs/make_recipe_page.py > docs/recipe.md`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from keylm.recipe import Recipe
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
    ConstrainedChatConfig,
    FilesConfig,
    HubConfig,
    InstalledDocsConfig,
    InstructionsConfig,
    RepetitionConfig,
    TyposConfig,
)
from keylm.recipe.tokenizer import TokenizerConfig
from keylm.recipe.train import PhaseConfig, TrainConfig

SECTIONS: dict[str, type[BaseModel]] = {
    "The recipe": Recipe,
    "`model`": ModelConfig,
    "`tokenizer`": TokenizerConfig,
    "`data`": DataConfig,
    "`data.clean`": CleanConfig,
    "A source of type `files`": FilesConfig,
    "A source of type `hub`": HubConfig,
    "A source of type `installed-docs`": InstalledDocsConfig,
    "A source of type `instructions`": InstructionsConfig,
    "A source of type `repetition`": RepetitionConfig,
    "A source of type `typos`": TyposConfig,
    "A source of type `constrained-chat`": ConstrainedChatConfig,
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

One YAML file says everything about a model. Whatever it leaves out has the default given here; a key that is not
listed here is refused. Any field can be changed on the command line: `--set train.tokens=2e6`, and a source by its
name: `--set data.sources.wikipedia.weight=0.2`. A run keeps its whole recipe, defaults included, in `recipe.yaml`.

This page is written by `docs/make_recipe_page.py` from the fields themselves.
"""


def page() -> str:
    """The whole page, as markdown."""
    return HEAD + "".join(_section(title, part) for title, part in SECTIONS.items())


def _section(title: str, part: type[BaseModel]) -> str:
    shown = TrainConfig.model_fields if part is SftConfig else {}
    rows = [
        f"| `{name}` | {_default(field)} | {_one_line(field.description)} |\n"
        for name, field in part.model_fields.items()
        if name not in shown or field.description != shown[name].description
    ]
    note = "\nAll fields of `train`, and these:\n" if shown else ""
    table = "| key | default | meaning |\n|---|---|---|\n" + "".join(rows)
    return f"\n## {title}\n\n{_one_line(part.__doc__)}\n{note}\n{table}"


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
