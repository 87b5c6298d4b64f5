"""Ways to put a mistyped text and what was meant side by side."""

from __future__ import annotations

from random import Random

from keylm.common.documents import Document, Message

_BACKWARDS = 0.15
"""Share of the pairs that go from what was meant to how it may be mistyped."""
_TALKS = 0.5
"""Share of the pairs from plain text that are conversations."""

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
"""What the user asks, what the assistant answers."""
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


def pair(typed: str, meant: str, is_talk: bool, rng: Random) -> Document:
    """Both texts, word for word, in one of the framings; a conversation where `is_talk`, else often plain text."""
    backwards = rng.random() < _BACKWARDS
    if is_talk or rng.random() < _TALKS:
        question, answer = rng.choice(CHAT_BACKWARDS if backwards else CHAT)
        return Document(messages=(_say("user", question, typed, meant), _say("assistant", answer, typed, meant)))
    return Document(text=_fill(rng.choice(PLAIN_BACKWARDS if backwards else PLAIN), typed, meant))


def _say(role: str, framing: str, typed: str, meant: str) -> Message:
    return Message(role=role, content=_fill(framing, typed, meant))  # type: ignore[typeddict-item]


def _fill(framing: str, typed: str, meant: str) -> str:
    return framing.format(typed=typed, meant=meant)
