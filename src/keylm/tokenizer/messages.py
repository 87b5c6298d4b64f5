"""Messages to token ids and a loss mask. No other module does this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from keylm.common.documents import ROLES, Message, Role
from keylm.common.errors import UserError

if TYPE_CHECKING:
    from keylm.tokenizer.tokenizer import Tokenizer


class EncodedConversation(NamedTuple):
    """A conversation as tokens."""

    ids: list[int]
    """Token ids."""
    assistant_spans: list[tuple[int, int]]
    """Start and stop, as in a slice, of the tokens that have a loss: each answer and the token that closes its turn."""


def encode_messages(
    tokenizer: Tokenizer, messages: Sequence[Message], add_generation_prompt: bool = False
) -> tuple[list[int], list[bool]]:
    """Encode one conversation.

    Control strings inside a message are encoded as characters. The ids are those of the rendered chat template if no
    message contains a control string and no answer begins with white space.

    Args:
        tokenizer: The tokenizer.
        messages: The conversation.
        add_generation_prompt: Append the head of an assistant turn, for the model to answer.

    Returns:
        The token ids, and for each of them whether it has a loss in SFT: the assistant's words and the token that
        closes its turn.

    Raises:
        UserError: a role is unknown, or a content is not a string.
    """
    ids, assistant_spans = encode_conversations(tokenizer, [messages])[0]
    if add_generation_prompt:
        ids = [*ids, tokenizer.turn_start, *tokenizer.encode("assistant\n")]
    loss_mask = [False] * len(ids)
    for start, stop in assistant_spans:
        loss_mask[start:stop] = [True] * (stop - start)
    return ids, loss_mask


def encode_conversations(tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]]) -> list[EncodedConversation]:
    """Encode many conversations in one call of the tokenizer, which uses all threads.

    A turn is `<|im_start|>role\\ncontent<|im_end|>\\n`. Its loss mask follows from where the pieces are put together,
    not from a search in the ids.

    Raises:
        UserError: a role is unknown, or a content is not a string.
    """
    heads = {head: [tokenizer.turn_start, *tokenizer.encode(head)] for head in ("", *(f"{role}\n" for role in ROLES))}
    turn_end = [tokenizer.turn_end, *tokenizer.encode("\n")]
    turns = [_split_turn(message) for messages in conversations for message in messages]
    bodies = tokenizer.encode_batch([body for _, body in turns])
    encoded_turns = iter([(heads[head], body_ids) for (head, _), body_ids in zip(turns, bodies, strict=True)])

    encoded: list[EncodedConversation] = []
    for messages in conversations:
        ids: list[int] = []
        assistant_spans: list[tuple[int, int]] = []
        for message in messages:
            head_ids, body_ids = next(encoded_turns)
            ids += head_ids
            if message["role"] == "assistant":
                # One more than the answer: the model must learn to close its turn.
                assistant_spans.append((len(ids), len(ids) + len(body_ids) + 1))
            ids += body_ids
            ids += turn_end
        encoded.append(EncodedConversation(ids, assistant_spans))
    return encoded


def decode_messages(tokenizer: Tokenizer, ids: Sequence[int]) -> list[Message]:
    """Decode the whole turns of an encoded conversation; the head of a turn to be written is left out."""
    messages: list[Message] = []
    start = 0
    for position, token in enumerate(ids):
        if token == tokenizer.turn_start:
            start = position + 1
        elif token == tokenizer.turn_end:
            role, _, content = tokenizer.decode(list(ids[start:position])).partition("\n")
            messages.append({"role": cast(Role, role), "content": content})
    return messages


def _split_turn(message: Message) -> tuple[str, str]:
    """Split a turn into two texts that are encoded separately: its head and its body.

    The template puts the content right after the head's newline, and the split regexes join a newline with white space
    after it. So content that begins with white space is encoded together with its head, as it would be in the rendered
    template. An answer never is: in a chat, its head is already there when the model writes it.
    """
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str):
        raise UserError(f"a message needs a role out of {', '.join(ROLES)} and a content of text, not {message!r:.200}")
    if role != "assistant" and content[:1].isspace():
        return "", f"{role}\n{content}"
    return f"{role}\n", content
