"""What a server takes on: how much at once, how much in line, how long; and the gate that keeps to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server, each far beyond what honest clients need."""

    connections: int = 512
    """Connections at the same time, one thread each."""
    answers: int = 4
    """Answers written at the same time."""
    waiting: int = 256
    """Requests in line for an answer."""
    waiting_seconds: float = 120
    """How long a request stays in line."""
    answer_seconds: float = 600
    """How long an answer may take to write."""
    body_bytes: int = 4_000_000
    """Longest request body: many times the longest context."""
    body_seconds: float = 30
    """How long a body may take to arrive."""
    silence_seconds: float = 60
    """How long a connection may neither send nor take anything."""
    grace_seconds: float = 30
    """How long a stopping server waits for the answers that are being written."""


class OverloadedError(Exception):
    """There is no room: the line is full, the wait too long, or the server stops."""


class AdmissionQueue:
    """Lets a number of answers be written at once, and the rest wait in line."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.waiting = 0
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Wait for a place, and hold it until the block ends.

        Raises:
            NoRoomError: there will be none.
        """
        with self._changed:
            self._wait_in_line()
            self.running += 1
        try:
            yield
        finally:
            with self._changed:
                self.running -= 1
                self._changed.notify_all()

    def close(self, seconds: float) -> bool:
        """Let nobody in any more, and wait up to `seconds` for those inside; whether all have left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self.running == 0, seconds)

    def _wait_in_line(self) -> None:
        if self.waiting >= self.limits.waiting:
            raise OverloadedError(f"{self.waiting} requests are waiting already: try again later")
        self.waiting += 1
        deadline = time.monotonic() + self.limits.waiting_seconds
        try:
            while not self._closed and self.running >= self.limits.answers:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise OverloadedError("no answer could be begun in time: try again later")
        finally:
            self.waiting -= 1
        if self._closed:
            raise OverloadedError("the server is stopping")
