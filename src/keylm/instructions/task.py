"""What a prompt asks for, and how an answer to it is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from keylm.common.documents import Message


class Check(Protocol):
    """Something that an answer can be seen to do or not to do."""

    @property
    def kind(self) -> str:
        """Name of the kind of instruction, the row of its table."""

    def check(self, answer: str) -> bool:
        """Whether `answer` does it."""


@dataclass(frozen=True)
class Task:
    """A prompt and what its answer must do."""

    messages: list[Message]
    """The prompt: a conversation that ends with the user's turn."""
    topic: str | None
    """What the answer must name, or None where no topic is asked about."""
    checks: tuple[Check, ...] = ()
    """The instructions that can be checked."""

    @property
    def kinds(self) -> list[str]:
        """Kinds of the checks, in order."""
        return [check.kind for check in self.checks]

    def followed(self, answer: str) -> list[bool]:
        """For each check, whether `answer` follows it; an empty answer follows none (as in IFEval)."""
        return [bool(answer.strip()) and check.check(answer) for check in self.checks]

    def names_topic(self, answer: str) -> bool:
        """Whether `answer` names the topic, in small or capital letters."""
        return self.topic is not None and " ".join(self.topic.lower().split()) in " ".join(answer.lower().split())


@dataclass(frozen=True)
class Example:
    """A task and an answer that satisfies it by construction."""

    task: Task
    answer: str

    @property
    def document(self) -> list[Message]:
        """The whole conversation."""
        return [*self.task.messages, assistant_message(self.answer)]


def user_message(text: str) -> list[Message]:
    """A prompt of one turn."""
    return [{"role": "user", "content": text}]


def assistant_message(answer: str) -> Message:
    """An answer as the assistant's turn."""
    return {"role": "assistant", "content": answer}
