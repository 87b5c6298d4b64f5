"""Calls of tools in OpenAI's shape, for models that were never taught to call any.

Where a request requires a call, the answer follows a JSON schema of the calls that are possible, so it always is one.
Where the model may choose (`auto`), it answers in words. In a conversation with calls, the model reads the calls as the
JSON that it would write, and their results as turns of the user.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

Body = dict[str, Any]

_DEFINITIONS = ("$defs", "definitions")
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}


def callable_functions(tools: list[Body], choice: str | Body | None) -> list[Body]:
    """Return the functions of which the answer must call one; none if it may be words.

    Raises:
        ValueError: A call is required, and there is no such function.
    """
    functions = [tool["function"] for tool in tools if isinstance(tool.get("function"), dict)]
    functions = [function for function in functions if isinstance(function.get("name"), str)]
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        functions = [function for function in functions if function["name"] == choice["function"].get("name")]
    elif choice != "required":
        return []
    if not functions:
        raise ValueError("a call is required, and `tools` has no such function")
    return functions


def call_schema(functions: list[Body]) -> Body:
    """Return the JSON schema of a call of one of the functions."""
    # References (`#/$defs/City`) are read from the root of a schema, so what they name has to move there.
    definitions: dict[str, Body] = {}
    for function in functions:
        for keyword in _DEFINITIONS:
            parameters = function.get("parameters")
            if isinstance(parameters, dict) and isinstance(parameters.get(keyword), dict):
                definitions.setdefault(keyword, {}).update(parameters[keyword])
    return {**definitions, "anyOf": [_schema_of_function(function) for function in functions]}


def _schema_of_function(function: Body) -> Body:
    arguments = function.get("parameters") or _NO_ARGUMENTS
    if isinstance(arguments, dict):
        arguments = {name: value for name, value in arguments.items() if name not in _DEFINITIONS}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def parse_call(text: str) -> Body | None:
    """Return the call that an answer with `call_schema` makes; None if it was cut off."""
    try:
        call = json.loads(text)
    except ValueError:
        return None
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def spell_calls(tool_calls: list[Any]) -> str:
    """Return the calls of an earlier turn as the text that the model would write."""
    functions = [call.get("function") for call in tool_calls if isinstance(call, dict)]
    return "\n".join(
        json.dumps({name: function.get(name) for name in ("name", "arguments")}, ensure_ascii=False)
        for function in functions
        if isinstance(function, dict)
    )
