"""Recipes as YAML files: reading, overriding single fields, writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from keylm.common.errors import UserError
from keylm.recipe.error_messages import first_problem
from keylm.recipe.recipe import Recipe


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe file and apply `key.subkey=value` overrides.

    Raises:
        UserError: the file is missing, is not YAML, or a key or value is not a recipe's.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys and values, such as `name: my-model`")
    for override in overrides or []:
        _apply_override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """The whole recipe as YAML, defaults included: what a run keeps."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply_override(values: Any, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key=value, such as --set train.tokens=2e6")
    *parents, last = key.split(".")
    for parent in parents:
        if isinstance(values, list):
            values = values[_item_index(values, parent, override)]
            continue
        if values.get(parent) is None:
            values[parent] = {}
        values = values[parent]
        if not isinstance(values, dict | list):
            raise UserError(f"--set {override}: `{parent}` is a value, not a section")
    values[_item_index(values, last, override) if isinstance(values, list) else last] = yaml.safe_load(text)


def _item_index(items: list[Any], key: str, override: str) -> int:
    """Position of a list's item, by its number or by its `name`."""
    for index, item in enumerate(items):
        if key == str(index) or (isinstance(item, dict) and item.get("name") == key):
            return index
    raise UserError(f"--set {override}: the list has no item `{key}`; use its name or its position from 0")
