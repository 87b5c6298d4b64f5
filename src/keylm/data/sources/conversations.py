"""The forms in which people keep conversations: OpenAI's messages, ShareGPT, Alpaca, prompt and completion."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

from keylm.common.documents import ROLES, Message
from keylm.common.errors import UserError

TOOL_CALL = "tool call"
OTHER_ROLE = "role other than system, user, assistant"
NOT_ONLY_TEXT = "message with more than text"

FORMS = (
    ("conversations",),
    ("conversation",),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
)
"""Columns of the forms that are read where a row has no `messages_column`, the first that fits: ShareGPT's list of
`{from, value}`, request and answer as texts (or lists of messages, as in trl), and those of Alpaca and Dolly."""
_INPUTS = ("input", "context")
"""What the instruction of Alpaca (`input`) or Dolly (`context`) is about."""
FORM_COLUMNS = frozenset({column for form in FORMS for column in form} | {*_INPUTS, "system", "history"})
"""Every column that one of the forms may use."""

_Role = Literal["system", "user", "assistant"]
_ROLES: dict[str, _Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_TOOL_ROLES = {"tool", "tool_call", "tool_response", "function", "function_call", "observation", "ipython"}


class UnusableConversationError(Exception):
    """A conversation that is left out and counted, because a part of it cannot be learned."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """The reason under which it is counted."""


def find_form(columns: Collection[str]) -> tuple[str, ...] | None:
    """The first of `FORMS` all of whose columns are there."""
    return next((form for form in FORMS if all(column in columns for column in form)), None)


def conversation_of_form(form: tuple[str, ...], values: Mapping[str, Any], location: str) -> tuple[Message, ...]:
    """The conversation of a row in one of `FORMS`.

    Raises:
        UserError: a column holds something else than the form says.
        UnusableConversationError: the conversation has to be left out.
    """
    system = _turns("system", values["system"], f"{location}, `system`") if values.get("system") else []
    if len(form) == 1:
        turns = _turns("user", values[form[0]] or [], f"{location}, `{form[0]}`")
    else:
        request, answer = form
        turns = [
            *_history(values.get("history") or [], f"{location}, `history`"),
            *_turns("user", values[request], f"{location}, `{request}`"),
            *_turns("assistant", values[answer], f"{location}, `{answer}`"),
        ]
        inputs = [values[name] for name in _INPUTS if isinstance(values.get(name), str) and values[name].strip()]
        if request == "instruction" and inputs and turns[-2]["content"]:
            turns[-2]["content"] = "\n\n".join([turns[-2]["content"], *inputs])
    return tuple(turns if any(turn["role"] == "system" for turn in turns) else [*system, *turns])


def parse_turn(turn: Any, location: str) -> Message:
    """One turn, as `{role, content}` or ShareGPT's `{from, value}`. Null content becomes empty, for cleaning to drop.

    Raises:
        UserError: it has another form.
        UnusableConversationError: it calls a tool, has an unknown role, or holds a picture or the like.
    """
    if not isinstance(turn, dict):
        raise UserError(f"{location}: a message must be an object with a `role` and a `content`, not {turn!r:.80}")
    # A column of parquet gives every turn every key, null where it has none.
    name = turn.get("role") or turn.get("from")
    role = name.strip().lower() if isinstance(name, str) else name
    if role in _TOOL_ROLES or turn.get("tool_calls") or turn.get("function_call"):
        raise UnusableConversationError(TOOL_CALL, f"{location} calls a tool, or is what a tool answered")
    given = [turn[key] for key in ("content", "value") if key in turn]
    # 0 stands for a missing content, which is an error, while null is not.
    content = next((value for value in given if value is not None), None if given else 0)
    if isinstance(content, list):
        content = _join_parts(content, location)
    if not isinstance(content, str | None) or not role:
        raise UserError(f"{location}: a message must have a `role` and a `content` of text")
    if role not in _ROLES:
        raise UnusableConversationError(OTHER_ROLE, f"{location}: the role {name!r} is not one of {', '.join(ROLES)}")
    return {"role": _ROLES[role], "content": content or ""}


def _join_parts(parts: list[Any], location: str) -> str:
    """The text of a content that is a list of parts, as in OpenAI's API."""
    texts = [part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise UnusableConversationError(NOT_ONLY_TEXT, f"{location} has a part that is no text")
    return "".join(text for text in texts if text)


def _turns(role: _Role, value: Any, location: str) -> list[Message]:
    """One turn of this role, or a list of messages."""
    if isinstance(value, list):
        return [parse_turn(turn, f"{location}, message {number}") for number, turn in enumerate(value, start=1)]
    if not isinstance(value, str | None):
        raise UserError(f"{location} is neither text nor a list of messages but {type(value).__name__}")
    return [{"role": role, "content": value or ""}]


def _history(pairs: Any, location: str) -> list[Message]:
    """Earlier turns, as pairs of request and answer."""
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{location} is not a list of pairs of request and answer")
    return [
        message
        for request, answer in pairs
        for message in (*_turns("user", request, location), *_turns("assistant", answer, location))
    ]
