"""Framings: templates that put a mistyped text beside what was meant, as a conversation or as plain text."""

from __future__ import annotations

from random import Random

from keylm.common.documents import Document

_BACKWARDS = 0.15
"""Fraction of the pairs that go from the intended text to the mistyped one."""
_CHATS = 0.5
"""Fraction of the pairs made from plain text that are conversations."""

CHAT = (
    ("What did I mean by “{typed}”?", "{meant}"),
    ("What did I mean?\n{typed}", "You meant: {meant}"),
    ("{typed}\nWhat did I want to say?", "You wanted to say: {meant}"),
    ("I typed too fast: {typed}", "You meant “{meant}”"),
    ("Correct: {typed}", "{meant}"),
    ("Correct the spelling.\n{typed}", "{meant}"),
    ("Please correct my typing: {typed}", "{meant}"),
    ("Fix the typos:\n{typed}", "{meant}"),
    ("Can you fix the typos in this?\n{typed}", "{meant}"),
    ("Rewrite without mistakes:\n{typed}", "{meant}"),
    ("Rewrite this so that every word is spelled right.\n{typed}", "{meant}"),
    ("Write this properly: {typed}", "{meant}"),
    ("What should it say here? “{typed}”", "“{meant}”"),
    ("{typed}\n\nProofread this.", "{meant}"),
)
"""The user's message, and the assistant's."""
CHAT_BACKWARDS = (
    ("How might somebody mistype this?\n{meant}", "{typed}"),
    ("Type this in a hurry: {meant}", "{typed}"),
    ("Write this with typos.\n{meant}", "{typed}"),
    ("Give me a mistyped version of “{meant}”", "“{typed}”"),
)
PLAIN = (
    "Typed: {typed}\nMeant: {meant}",
    "{typed} (that is: {meant})",
    "{typed}\n\nIn other words: {meant}",
    "{typed}\nsorry, I meant: {meant}",
    "{typed}\n* {meant}",
    "Before: {typed}\nAfter: {meant}",
    "Draft: {typed}\nCorrected: {meant}",
    "“{typed}” means “{meant}”",
    "{typed} -> {meant}",
    "Wrong: {typed}\nRight: {meant}",
    "Typo:\n{typed}\n\nFixed:\n{meant}",
)
PLAIN_BACKWARDS = (
    "Meant: {meant}\nTyped: {typed}",
    "{meant}\nTyped in a hurry: {typed}",
    "{meant} (often typed: {typed})",
    "Right: {meant}\nWrong: {typed}",
)


def contrastive_pair(typed: str, meant: str, is_chat: bool, rng: Random) -> Document:
    """Put the mistyped and the intended text, both word for word, into a random framing.

    Args:
        typed: The mistyped text.
        meant: The intended text.
        is_chat: Whether the result must be a conversation; otherwise it is plain text in half of the cases.
        rng: Source of randomness.
    """
    backwards = rng.random() < _BACKWARDS
    # A conversation cannot become plain text: in `sft.sources` every document must be a conversation.
    if is_chat or rng.random() < _CHATS:
        question, answer = rng.choice(CHAT_BACKWARDS if backwards else CHAT)
        return Document(
            messages=(
                {"role": "user", "content": question.format(typed=typed, meant=meant)},
                {"role": "assistant", "content": answer.format(typed=typed, meant=meant)},
            )
        )
    framing = rng.choice(PLAIN_BACKWARDS if backwards else PLAIN)
    return Document(text=framing.format(typed=typed, meant=meant))
