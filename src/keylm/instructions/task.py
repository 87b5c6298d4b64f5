"""A task (a prompt and the checks its answer must pass), and an example (a task with an answer that passes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from keylm.common.documents import Message


class Check(Protocol):
    """Something that a program can verify of an answer: a constraint, or the right answer of a copy task."""

    @property
    def name(self) -> str:
        """Identifies the check in score tables."""

    def check(self, answer: str) -> bool:
        """Whether `answer` passes."""


@dataclass(frozen=True)
class Task:
    """A prompt and what its answer must satisfy."""

    messages: list[Message]
    """The prompt: a conversation that ends with the user's turn."""
    topic: str | None
    """The topic that the answer must name; None if the prompt does not ask about one."""
    checks: tuple[Check, ...] = ()

    @property
    def constraint_names(self) -> list[str]:
        """The names of the checks, in order."""
        return [check.name for check in self.checks]

    def followed(self, answer: str) -> list[bool]:
        """For each check, whether `answer` passes. An empty answer passes none, as in IFEval."""
        # Many constraints forbid something, which an empty answer does not contain either.
        return [bool(answer.strip()) and check.check(answer) for check in self.checks]

    def names_topic(self, answer: str) -> bool:
        """Whether `answer` names the topic; case and line breaks are ignored."""
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


def user_message(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant_message(text: str) -> Message:
    """A message of the assistant."""
    return {"role": "assistant", "content": text}
