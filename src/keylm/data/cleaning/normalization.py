"""Cleaning that needs no library and no setting: normalized characters, and text that is dropped for its form."""

from __future__ import annotations

import re
import string

from keylm.common.documents import Document, Message

TOO_SHORT = "too short"
NOT_TEXT = "not text"
EMPTY_MESSAGE = "empty message"
NO_ASSISTANT = "no assistant"

_MIN_TEXT = 0.6
"""Minimum fraction of a text's bytes that are letters or white space; tables and dumps of numbers have less."""

_UNUSUAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
"""Every character that the next two match: most texts have none, and one search is cheaper than two."""
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff]")
_BLANK_LINES = re.compile("\n{4,}")
_NOT_LETTERS = (string.punctuation + string.digits).encode()


def normalize_document(document: Document, min_document_bytes: int) -> Document | str:
    """The normalized document, or the reason to drop it.

    `min_document_bytes` applies to plain text; a conversation may be short.
    """
    if document.messages is None:
        text = normalize_text(document.text or "")
        data = text.encode()
        if len(data) < max(min_document_bytes, 1):
            return TOO_SHORT
        if len(data.translate(None, delete=_NOT_LETTERS)) < _MIN_TEXT * len(data):
            return NOT_TEXT
        return Document(text=text)
    messages: tuple[Message, ...] = tuple(
        {"role": message["role"], "content": normalize_text(message["content"]).strip()}
        for message in document.messages
    )
    if not all(message["content"] for message in messages):
        return EMPTY_MESSAGE
    if not any(message["role"] == "assistant" for message in messages):
        return NO_ASSISTANT
    return Document(messages=messages)


def normalize_text(text: str) -> str:
    """Line ends as newlines, no control characters but tab, no trailing spaces, at most two blank lines in a row.

    All other characters are kept, except lone surrogates, which UTF-8 cannot encode.
    """
    if text.isprintable():  # One line without anything to change.
        return text.rstrip()
    # Only text that is not ASCII can hold a lone surrogate, and most text is.
    if not text.isascii():
        text = text.encode(errors="ignore").decode()
    if _UNUSUAL.search(text):
        text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))
    text = "\n".join(map(str.rstrip, text.split("\n")))
    if "\n\n\n\n" in text:
        text = _BLANK_LINES.sub("\n\n\n", text)
    return text.strip("\n")
