"""Write docs/recipe.md from the recipe's own fields: `python docs/make_recipe_page.py > docs/recipe.md`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from keylm import recipe

SECTIONS: dict[str, type[BaseModel]] = {
    "The recipe": recipe.Recipe,
    "`model`": recipe.Model,
    "`tokenizer`": recipe.Tokenizer,
    "`data`": recipe.Data,
    "`data.clean`": recipe.Clean,
    "A source of kind `files`": recipe.Files,
    "A source of kind `hub`": recipe.Hub,
    "A source of kind `installed-docs`": recipe.InstalledDocs,
    "A source of kind `instructions`": recipe.Instructions,
    "A source of kind `drills`": recipe.Drills,
    "A source of kind `typos`": recipe.Typos,
    "A source of kind `verified`": recipe.Verified,
    "`prepare`": recipe.Prepare,
    "`train`": recipe.Training,
    "`train.optimizer`": recipe.Optimizer,
    "`train.phases`": recipe.Phase,
    "`sft`": recipe.Sft,
    "`dpo`": recipe.Dpo,
    "`grpo`": recipe.Grpo,
    "`eval`": recipe.Eval,
    "`export`": recipe.Export,
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
    shown = recipe.Training.model_fields if part is recipe.Sft else {}
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
