"""Recipes as YAML files: loading them, overriding single fields, and dumping them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from keylm.common.errors import UserError
from keylm.recipe.error_messages import first_problem
from keylm.recipe.recipe import Recipe
from keylm.shipped import recipe_names, shipped_recipe


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """Load a recipe file and apply overrides.

    Args:
        path: A YAML file, the name of a recipe that comes with the package, or a run folder, which holds its recipe as
            `recipe.yaml`.
        overrides: Single fields to change, as `key.subkey=value`.

    Raises:
        UserError: the file is missing or not valid YAML, or a key, a value or an override is wrong.
    """
    path = shipped_recipe(path) or path
    if path.is_dir():
        path = path / "recipe.yaml"
        if not path.exists():
            raise UserError(f"{path.parent} is not a run: it has no recipe.yaml")
    values = read_recipe_values(path)
    for override in overrides or []:
        _apply_override(values, override)
    return validate_recipe(values, path)


def read_recipe_values(path: Path) -> dict[str, Any]:
    """The keys and values of a recipe file, as they are given there.

    Raises:
        UserError: the file is missing, not valid YAML, or holds something else.
    """
    try:
        values = _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        names = ", ".join(recipe_names())
        raise UserError(f"there is no recipe {path}; those that come with KeyLM are {names}") from error
    except OSError as error:
        raise UserError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text, as a recipe must be ({error})") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is not a recipe: it must hold keys and values, such as `name: my-model`")
    return values


def validate_recipe(values: dict[str, Any], path: Path) -> Recipe:
    """Make a recipe of keys and values.

    Raises:
        UserError: a key or a value is wrong; the message names it, and `path`.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error, values)}") from error


def dump_recipe(recipe: Recipe) -> str:
    """Dump the whole recipe as YAML, defaults included. A run keeps it in this form."""
    # Defaults included, so that a later version with others does not change a run.
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _parse_yaml(text: str) -> Any:
    """Parse YAML.

    Raises:
        ValueError: it is not valid, has a key twice, or is nested too deeply; the message is one line.
    """
    try:
        return yaml.load(text, _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:
        # A `ValueError` comes from Python, which parses no integer of thousands of digits.
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the last of two equal keys and drop the first in silence."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"):
            if key.value in keys:
                problem = f"the key `{key.value}` occurs twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            keys.add(key.value)
        return node


def _apply_override(values: dict[str, Any], override: str) -> None:
    """Set one field of `values` in place; sections that are missing on the way to it are added."""
    key, separator, text = override.partition("=")
    if not separator:
        raise UserError(f"--set {override}: write it as key=value, such as --set train.tokens=2e6")
    try:
        value = _parse_yaml(text)
    except ValueError as error:
        raise UserError(f"--set {override:.80}: the value is not valid YAML: {error}") from error
    *parents, last = key.split(".")
    section: Any = values
    for parent in parents:
        if isinstance(section, list):
            section = section[_item_index(section, parent, override)]
        else:
            # A section may be there and empty (`dpo:`), which YAML parses as None.
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
        if not isinstance(section, dict | list):
            raise UserError(f"--set {override}: `{parent}` is a value, not a section")
    section[_item_index(section, last, override) if isinstance(section, list) else last] = value


def _item_index(items: list[Any], key: str, override: str) -> int:
    """Index of a list's item, given its position from 0 or its `name`."""
    for index, item in enumerate(items):
        if key == str(index) or (isinstance(item, dict) and item.get("name") == key):
            return index
    raise UserError(f"--set {override}: the list has no item `{key}`; use its name or its position from 0")
