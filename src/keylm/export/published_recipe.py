"""The recipe as it is published with a model: whole, but without the folders of the machine it ran on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from keylm.recipe import Recipe

_LOCAL_PATHS = {"path", "data", "language_model"}
"""Keys whose value, if it is text, is a path on this machine."""
_COMMENT = "# The recipe of this model, with all defaults. Local paths are shortened to their last part.\n"


def published_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, defaults included, with the names of local files and folders instead of their paths."""
    values = _without_folders(recipe.model_dump(mode="json"))
    return _COMMENT + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _without_folders(values: Any) -> Any:
    if isinstance(values, list):
        return [_without_folders(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {
        key: _last_parts(value) if key in _LOCAL_PATHS and isinstance(value, str | list) else _without_folders(value)
        for key, value in values.items()
    }


def _last_parts(paths: str | list[str]) -> str | list[str]:
    return Path(paths).name if isinstance(paths, str) else [Path(path).name for path in paths]
