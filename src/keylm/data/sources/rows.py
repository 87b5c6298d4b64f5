"""How rows become documents: which rows are read, which column is the text, and what makes a conversation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from keylm.common.documents import ROLES, Document, Message
from keylm.common.errors import UserError
from keylm.recipe.sources import FilesConfig, HubConfig

Positioned = Iterator[tuple[Document, int]]
"""Documents, each with the number of the file's bytes that have been read up to its end."""

_TREE_COLUMNS = ("message_tree_id", "message_id", "parent_id", "role", "rank")
"""Columns of a data set of message trees, as in OASST2 (Köpf et al. 2023), beside the text."""
_TREE_ROLES: dict[str, Literal["user", "assistant"]] = {"prompter": "user", "assistant": "assistant"}


class Row(NamedTuple):
    """One row of a file."""

    values: dict[str, Any]
    place: str
    """Where it stands, for error messages."""
    position: int
    """Bytes of the file that have been read up to its end."""


def columns(source: FilesConfig | HubConfig, available: list[str], place: str) -> list[str]:
    """The columns that `documents` needs, of those that are `available`; a part of a struct is named with a dot.

    Raises:
        UserError: there is neither text nor messages, or a column to select rows by is missing.
    """
    names = [name for name in available if name in (source.text_column, source.messages_column)]
    if not names:
        raise _missing_column(place, available, source)
    _check(available, source, place)
    system = source.system_column if isinstance(source, HubConfig) else None
    return list(dict.fromkeys([*names, *_needed(source), *([system] if system else [])]))


def documents(rows: Iterable[Row], source: FilesConfig | HubConfig) -> Positioned:
    """The documents of the rows that the source wants: one per row, or one per tree of messages.

    Trees are held in memory, because nothing says that the messages of one follow each other.

    Raises:
        UserError: a row is not a document.
    """
    wanted = (row for row in rows if _is_wanted(row, source))
    if _holds_trees(source):
        return _trees(wanted, source)
    return ((_document(row, source), row.position) for row in wanted)


def _holds_trees(source: FilesConfig | HubConfig) -> bool:
    return isinstance(source, HubConfig) and source.message_trees


def _needed(source: FilesConfig | HubConfig) -> list[str]:
    """Columns, beside those of text and messages, without which a row cannot be read."""
    if not isinstance(source, HubConfig):
        return []
    return [*source.include_rows, *source.exclude_rows, *(_TREE_COLUMNS if source.message_trees else ())]


def _check(available: Collection[str], source: FilesConfig | HubConfig, place: str) -> None:
    for name in _needed(source):
        if name not in available:
            raise UserError(f"{place}: there is no column `{name}` among {', '.join(available)}")


def _is_wanted(row: Row, source: FilesConfig | HubConfig) -> bool:
    if not isinstance(source, HubConfig):
        return True
    _check(row.values, source, row.place)
    kept = all(row.values[name] == value for name, value in source.include_rows.items())
    return kept and not any(row.values[name] in values for name, values in source.exclude_rows.items())


def _document(row: Row, source: FilesConfig | HubConfig) -> Document:
    values, place = row.values, row.place
    text, messages = values.get(source.text_column), values.get(source.messages_column)
    if isinstance(text, str):
        return Document(text=text)
    if text is not None:
        raise UserError(f"{place}: `{source.text_column}` is not text but {type(text).__name__}")
    if isinstance(messages, list):
        turns = [_message(turn, f"{place}, message {number}") for number, turn in enumerate(messages, start=1)]
        return Document(messages=(*_system(row, source, turns), *turns))
    if messages is not None:
        raise UserError(f"{place}: `{source.messages_column}` is not a list of messages but {type(messages).__name__}")
    if source.messages_column in values:
        return Document(messages=())
    if source.text_column in values:
        return Document(text="")
    raise _missing_column(place, list(values), source)


def _message(turn: Any, place: str) -> Message:
    """A turn as a message. One whose content is null says nothing, so that cleaning drops the conversation."""
    content = turn.get("content", 0) if isinstance(turn, dict) else 0
    if not isinstance(content, str | None):
        raise UserError(f"{place}: a message must have a `role` and a `content` of text")
    if turn.get("role") not in ROLES:
        raise UserError(f"{place}: the role {turn.get('role')!r} is not one of {', '.join(ROLES)}")
    return {"role": turn["role"], "content": content or ""}


def _system(row: Row, source: FilesConfig | HubConfig, turns: list[Message]) -> list[Message]:
    """The system's message that stands in a column of its own, unless the conversation has one."""
    if (
        not isinstance(source, HubConfig)
        or source.system_column is None
        or any(turn["role"] == "system" for turn in turns)
    ):
        return []
    value: Any = row.values
    for key in source.system_column.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return [{"role": "system", "content": value}] if isinstance(value, str) and value.strip() else []


def _trees(rows: Iterable[Row], source: FilesConfig | HubConfig) -> Positioned:
    trees: dict[str, list[dict[str, Any]]] = defaultdict(list)
    position = 0
    for row in rows:
        trees[row.values["message_tree_id"]].append(row.values)
        position = row.position
    for messages in trees.values():
        turns = _best_path(messages, source.text_column)
        if turns:
            yield Document(messages=turns), position


def _best_path(messages: list[dict[str, Any]], text_column: str) -> tuple[Message, ...]:
    """The turns from the root along the best-ranked replies (rank 0 is best, none is last) to the last answer."""
    replies = defaultdict(list)
    for message in messages:
        replies[message["parent_id"]].append(message)
    path: list[Message] = []
    parent = None
    while replies[parent]:
        best = min(replies[parent], key=lambda reply: float("inf") if reply["rank"] is None else reply["rank"])
        if best["role"] not in _TREE_ROLES:
            raise UserError(
                f"message {best['message_id']}: the role {best['role']!r} is not one of {', '.join(_TREE_ROLES)}"
            )
        path.append({"role": _TREE_ROLES[best["role"]], "content": best[text_column] or ""})
        parent = best["message_id"]
    answered = [number for number, turn in enumerate(path, start=1) if turn["role"] == "assistant"]
    return tuple(path[: max(answered, default=0)])


def _missing_column(place: str, names: list[str], source: FilesConfig | HubConfig) -> UserError:
    return UserError(
        f"{place}: there is no `{source.text_column}` and no `{source.messages_column}` among "
        f"{', '.join(names) or 'its columns'}; name the right one as text_column or messages_column in the recipe"
    )
