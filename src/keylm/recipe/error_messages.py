"""What pydantic found wrong with a recipe, in one sentence."""

from __future__ import annotations

from pydantic import ValidationError


def first_problem(error: ValidationError) -> str:
    """The first problem, with the key it is about and the value that was given."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"`{key}` is not a key of a recipe; docs/recipe.md lists them all"
    message = problem["msg"].removeprefix("Value error, ")
    given = problem.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"`{key}`: {message}{shown}" if key else message
