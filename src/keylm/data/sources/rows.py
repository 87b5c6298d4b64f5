"""How rows of JSON lines and parquet files become documents: which rows are read, and which columns are used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from keylm.common.documents import Document, Message
from keylm.common.errors import UserError
from keylm.data.sources.conversations import (
    FORM_COLUMNS,
    FORMS,
    UnusableConversationError,
    conversation_of_form,
    find_form,
    parse_turn,
)
from keylm.data.sources.progress import ReadProgress

PositionedDocuments = Iterator[tuple[Document, int]]
"""Documents, each with the number of bytes of the file that have been read up to its end."""

_TREE_COLUMNS = ("message_tree_id", "message_id", "parent_id", "role", "rank")
"""Columns of a data set of message trees, as in OASST2 (Köpf et al. 2023), besides the text."""
_TREE_ROLES: dict[str, Literal["user", "assistant"]] = {"prompter": "user", "assistant": "assistant"}


class NoTextError(UserError):
    """A row has neither text nor a conversation in a form that is known."""


@dataclass(frozen=True)
class RowFormat:
    """Which rows are read, and which of their columns make a document; see `keylm.recipe.sources.HubConfig`."""

    text_column: str = "text"
    messages_column: str = "messages"
    system_column: str | None = None
    include_rows: Mapping[str, str | int | bool] = field(default_factory=dict)
    exclude_rows: Mapping[str, Sequence[str]] = field(default_factory=dict)
    message_trees: bool = False
    prefer_messages: bool = False
    """Whether a row with a text and a conversation gives the conversation."""

    @property
    def required_columns(self) -> list[str]:
        """Columns that every row must have, besides those of text and messages."""
        return [*self.include_rows, *self.exclude_rows, *(_TREE_COLUMNS if self.message_trees else ())]


class Row(NamedTuple):
    """One row of a file."""

    values: dict[str, Any]
    location: str
    """File and line or row, for error messages."""
    position: int
    """Bytes of the file that have been read up to the row's end."""


def columns_to_read(row_format: RowFormat, available: list[str], location: str) -> list[str]:
    """Which of the `available` columns of a file have to be read; a field of a struct is named with a dot.

    Raises:
        UserError: there is neither text nor messages, or a column to select rows by is missing.
    """
    names = [name for name in available if name in (row_format.text_column, row_format.messages_column)]
    if row_format.messages_column not in names and (not names or row_format.prefer_messages) and find_form(available):
        names += [name for name in available if name in FORM_COLUMNS]
    if not names:
        raise _missing_column(location, available, row_format)
    _check_columns(available, row_format, location)
    system = [row_format.system_column] if row_format.system_column else []
    return list(dict.fromkeys([*names, *row_format.required_columns, *system]))


def documents_of_rows(rows: Iterable[Row], row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    """The documents of the selected rows: one per row, or one per message tree.

    Conversations of which the model could learn only a part, such as those with calls of tools, are left out and given
    to `progress.skip`.

    Message trees are held in memory, because the messages of a tree need not be next to each other.

    Raises:
        UserError: a row is not a document.
    """

    def is_selected(row: Row) -> bool:
        # For every row, because the lines of a JSON file need not have the same keys.
        _check_columns(row.values, row_format, row.location)
        is_included = all(row.values[name] == value for name, value in row_format.include_rows.items())
        return is_included and not any(row.values[name] in values for name, values in row_format.exclude_rows.items())

    selected = filter(is_selected, rows)
    if row_format.message_trees:
        return _documents_of_trees(selected, row_format.text_column)
    return _documents_of_selected(selected, row_format, progress)


def _check_columns(available: Collection[str], row_format: RowFormat, location: str) -> None:
    for name in row_format.required_columns:
        if name not in available:
            raise UserError(f"{location}: there is no column `{name}` among {', '.join(available)}")


def _documents_of_selected(rows: Iterable[Row], row_format: RowFormat, progress: ReadProgress) -> PositionedDocuments:
    for row in rows:
        try:
            document = _document_of_row(row, row_format)
        except UnusableConversationError as error:
            progress.skip(error.reason, f"{row.location}: {error}")
            continue
        yield document, row.position


def _document_of_row(row: Row, row_format: RowFormat) -> Document:
    values, location = row.values, row.location
    text, messages = values.get(row_format.text_column), values.get(row_format.messages_column)
    form = find_form(values) if messages is None else None
    has_conversation = messages is not None or form is not None
    if isinstance(text, str) and not (has_conversation and (row_format.prefer_messages or not text)):
        return Document(text=text)
    if not isinstance(text, str | None):
        raise UserError(f"{location}: `{row_format.text_column}` is not text but {type(text).__name__}")
    if form:
        return Document(messages=conversation_of_form(form, values, location))
    if isinstance(messages, list):
        turns = [parse_turn(turn, f"{location}, message {number}") for number, turn in enumerate(messages, start=1)]
        if row_format.system_column and not any(turn["role"] == "system" for turn in turns):
            turns = [*_system_message(values, row_format.system_column), *turns]
        return Document(messages=tuple(turns))
    if messages is not None:
        raise UserError(
            f"{location}: `{row_format.messages_column}` is not a list of messages but {type(messages).__name__}"
        )
    # Both are null: an empty document, which cleaning drops and counts.
    if row_format.messages_column in values:
        return Document(messages=())
    if row_format.text_column in values:
        return Document(text="")
    raise _missing_column(location, list(values), row_format)


def _system_message(values: dict[str, Any], column: str) -> list[Message]:
    """The system message that is stored in a column of its own, such as `kwargs.instructions`; none if it is blank."""
    content: Any = values
    for key in column.split("."):
        content = content.get(key) if isinstance(content, dict) else None
    return [{"role": "system", "content": content}] if isinstance(content, str) and content.strip() else []


def _documents_of_trees(rows: Iterable[Row], text_column: str) -> PositionedDocuments:
    trees: dict[str, list[dict[str, Any]]] = defaultdict(list)
    position = 0
    for row in rows:
        trees[row.values["message_tree_id"]].append(row.values)
        position = row.position
    for messages in trees.values():
        turns = _best_path(messages, text_column)
        if turns:
            yield Document(messages=turns), position


def _best_path(messages: list[dict[str, Any]], text_column: str) -> tuple[Message, ...]:
    """The conversation from the root along the best-ranked replies (0 is best, null last) to the last answer."""
    replies = defaultdict(list)
    for message in messages:
        replies[message["parent_id"]].append(message)
    path: list[Message] = []
    parent = None
    while replies[parent]:
        # One path of each tree: other replies would repeat the beginning of the conversation.
        best = min(replies[parent], key=lambda reply: float("inf") if reply["rank"] is None else reply["rank"])
        if best["role"] not in _TREE_ROLES:
            raise UserError(
                f"message {best['message_id']}: the role {best['role']!r} is not one of {', '.join(_TREE_ROLES)}"
            )
        path.append({"role": _TREE_ROLES[best["role"]], "content": best[text_column] or ""})
        parent = best["message_id"]
    # A conversation that ends with a question has no answer to learn from there.
    answers = [number for number, turn in enumerate(path, start=1) if turn["role"] == "assistant"]
    return tuple(path[: max(answers, default=0)])


def _missing_column(location: str, names: list[str], row_format: RowFormat) -> NoTextError:
    forms = ", ".join(" and ".join(form) for form in FORMS)
    return NoTextError(
        f"{location}: there is no `{row_format.text_column}` and no `{row_format.messages_column}` among "
        f"{', '.join(names) or 'its columns'}; name the right one as text_column or messages_column in the recipe, or "
        f"use one of the forms that are read without it ({forms})"
    )
