"""The chat template, and the one place where messages become token ids and a mask of what the assistant said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from keylm.common.documents import ROLES, Message
from keylm.common.errors import UserError

if TYPE_CHECKING:
    from keylm.tokenizer.tokenizer import Tokenizer


EncodedConversation = tuple[list[int], list[tuple[int, int]]]
"""Token ids of a conversation, and from where to where the assistant speaks, the token that closes a turn included."""


def encode_messages(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Token ids of a conversation, and which of them the assistant is to learn.

    The mask covers the assistant's words and the token that closes its turn. Control strings inside a message are
    encoded as characters. The ids are those of the rendered template wherever no message contains a control string
    and no answer of the assistant begins with white space.

    Raises:
        UserError: a role or a content is not one.
    """
    ids, answers = encode_conversations(tokenizer, [messages])[0]
    if add_generation_prompt:
        ids = [*ids, tokenizer.turn_start, *tokenizer.encode("assistant\n")]
    learned = [False] * len(ids)
    for start, stop in answers:
        learned[start:stop] = [True] * (stop - start)
    return ids, learned


def encode_conversations(tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> list[EncodedConversation]:
    """Token ids of many conversations, encoded at once and on all threads, and where the assistant speaks in them."""
    heads = {head: [tokenizer.turn_start, *tokenizer.encode(head)] for head in ("", *(f"{role}\n" for role in ROLES))}
    closing = [tokenizer.turn_end, *tokenizer.encode("\n")]
    texts = [_texts(message) for messages in conversations for message in messages]
    bodies = tokenizer.encode_batch([body for _, body in texts])
    turns = iter([(heads[head], body) for (head, _), body in zip(texts, bodies, strict=True)])
    return [_join(messages, turns, closing) for messages in conversations]


def _texts(message: Message) -> tuple[str, str]:
    """The two texts of a turn that are encoded on their own: its head, and what is said.

    The template puts the content right after the head's newline, and the split regexes join a newline with white
    space around it: where the content begins with white space, the two must be encoded together. The assistant's
    words never are, for in a chat they follow a head that is already there.
    """
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str):
        raise UserError(f"a message needs a role out of {', '.join(ROLES)} and a content of text, not {message!r:.200}")
    if role != "assistant" and content[:1].isspace():
        return "", f"{role}\n{content}"
    return f"{role}\n", content


def _join(
    messages: Sequence[Message], turns: Iterator[tuple[list[int], list[int]]], closing: list[int]
) -> EncodedConversation:
    """Put the heads and bodies of a conversation's turns, and what closes them, one behind the other."""
    ids: list[int] = []
    answers: list[tuple[int, int]] = []
    for message in messages:
        head, body = next(turns)
        ids += head
        if message["role"] == "assistant":
            answers.append((len(ids), len(ids) + len(body) + 1))
        ids += body
        ids += closing
    return ids, answers
