"""Pydantic's validation errors as one sentence."""

from __future__ import annotations

import difflib
from typing import Any, get_args

from pydantic import ValidationError

from keylm.recipe.base import Config
from keylm.recipe.recipe import Recipe


def first_problem(error: ValidationError, values: Any) -> str:
    """Describe the first problem in one sentence: the key, what is wrong with it, and the value that was given.

    Args:
        error: What `model_validate` raised.
        values: What it validated, to translate pydantic's location into the keys of the file.
    """
    problems = error.errors()
    # A misspelled key first: it is why a required one is absent.
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    key = _dotted_key(problem["loc"], values)
    match problem["type"]:
        case "extra_forbidden":
            advice = _suggestion(problem["loc"]) or "`keylm docs recipe` lists them all"
            return f"`{key}` is not a key of a recipe; {advice}"
        case "union_tag_not_found":
            return f"`{key}` has no `type`; `keylm docs recipe` lists the source types"
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


def _suggestion(location: tuple[int | str, ...]) -> str:
    """The key that a misspelled one resembles, or one of that name in another section; empty if there is none."""
    *parents, wrong = map(str, location)
    sections: list[type[Config]] = [Recipe]
    for part in parents:
        fields = [section.model_fields[part].annotation for section in sections if part in section.model_fields]
        # The position of a source, and then its type, are no fields.
        sections = [config for field in fields for config in _configs_in(field)] or _of_type(part, sections)
    if similar := difflib.get_close_matches(wrong, {key for section in sections for key in section.model_fields}, 1):
        return f"did you mean `{similar[0]}`?"
    homes = [
        f"{name}.{wrong}"
        for name, field in Recipe.model_fields.items()
        if any(wrong in config.model_fields for config in _configs_in(field.annotation))
    ]
    return f"did you mean `{homes[0]}`?" if homes else ""


def _configs_in(annotation: Any) -> list[type[Config]]:
    """The sections that a field's annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        return [annotation]
    return [config for argument in get_args(annotation) for config in _configs_in(argument)]


def _of_type(name: str, sections: list[type[Config]]) -> list[type[Config]]:
    """The sources of this type; all of them if `name` is none."""
    named = [
        section
        for section in sections
        if "type" in section.model_fields and name in get_args(section.model_fields["type"].annotation)
    ]
    return named or sections
