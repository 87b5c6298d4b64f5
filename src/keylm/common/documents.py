"""A document: the unit that is read, cleaned, held out and counted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

Role = Literal["system", "user", "assistant"]
ROLES = get_args(Role)


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


DIGEST_BITS = 64


@dataclass(frozen=True, slots=True)
class Document:
    """A plain text or a conversation; exactly one of the two is not None."""

    text: str | None = None
    messages: tuple[Message, ...] | None = None

    @property
    def contents(self) -> list[str]:
        """The text, or the content of each message."""
        if self.messages is None:
            return [self.text or ""]
        return [message["content"] for message in self.messages]

    @property
    def plain(self) -> str:
        """All contents as one text, with a blank line between messages."""
        return "\n\n".join(self.contents)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the contents."""
        return sum(len(content.encode()) for content in self.contents)

    @property
    def digest(self) -> int:
        """A 64-bit hash of the document, the same in every source and on every machine."""
        if self.messages is None:
            content = self.text or ""
        else:
            turns = [[message["role"], message["content"]] for message in self.messages]
            content = json.dumps(turns, ensure_ascii=False)
        return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=DIGEST_BITS // 8).digest())


def is_held_out(digest: int, fraction: float) -> bool:
    """Whether the document with this digest belongs to the `fraction` that is held out for validation.

    Equal documents have equal digests, so no document is both trained on and validated on.
    """
    return digest < fraction * (1 << DIGEST_BITS)
