"""Pydantic's validation errors as one sentence."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError


def first_problem(error: ValidationError, values: Any) -> str:
    """Describe the first problem in one sentence: the key, what is wrong with it, and the value that was given.

    Args:
        error: What `model_validate` raised.
        values: What it validated, to translate pydantic's location into the keys of the file.
    """
    problem = error.errors()[0]
    key = _dotted_key(problem["loc"], values)
    match problem["type"]:
        case "extra_forbidden":
            return f"`{key}` is not a key of a recipe; docs/recipe.md lists them all"
        case "union_tag_not_found":
            return f"`{key}` has no `type`; docs/recipe.md lists the source types"
        case "union_tag_invalid":
            context = problem["ctx"]
            return f"`{key}.type`: there is no source type `{context['tag']}`, only {context['expected_tags']}"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    # A whole section as the value would bury the message.
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"`{key}`: {message}{shown}" if key else message


def _dotted_key(location: tuple[int | str, ...], values: Any) -> str:
    """The key as `--set` takes it, such as `data.sources.0.weight`."""
    keys: list[str] = []
    for part in location:
        # Behind the position of a source pydantic inserts its type, which is not a key of the file.
        if isinstance(values, dict) and part == values.get("type") and part not in values:
            continue
        keys.append(str(part))
        if isinstance(values, dict):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int):
            values = values[part]
    return ".".join(keys)
