"""Admission control: how much the server takes on at once, and the queue that requests wait in for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from keylm.serve.schema import RequestError


@dataclass(frozen=True)
class Limits:
    """Bounds of a server, each far beyond what a well-behaved client needs."""

    connections: int = 512
    """Open connections; a further one takes the place of the one that has sent no whole request for longest."""
    answers: int = 4
    """Answers generated at the same time, each with a slot of llama.cpp."""
    waiting: int = 256
    """Requests that wait for their turn; a further one is answered with 503."""
    waiting_seconds: float = 120
    """How long a request waits for its turn."""
    answer_seconds: float = 600
    """How long an answer may take to generate."""
    stall_seconds: float = 30
    """How long llama.cpp may be silent within an answer; it is then killed and started anew."""
    body_bytes: int = 4_000_000
    """Longest request body: many times the longest context."""
    held_bytes: int = 64_000_000
    """Length of all request bodies that are held at the same time; a further long one is answered with 503."""
    short_body_bytes: int = 65_536
    """A body up to this length is always taken: long ones, however slow, keep no short one out."""
    body_seconds: float = 30
    """How long a request body may take to arrive."""
    head_seconds: float = 15
    """How long the head of a request may take to arrive."""
    silence_seconds: float = 60
    """How long the server waits for a client: for a next request, the next piece of a body, room to send."""
    head_bytes: int = 65_536
    """Longest head of a request: its request line and headers."""
    grace_seconds: float = 30
    """How long a server that is stopping waits for the answers in progress."""


class OverloadedError(RequestError):
    """The request is not admitted: the queue is full, the wait too long, or the server is stopping."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message, "overloaded")


class AdmissionQueue:
    """Admits up to `limits.answers` requests at a time; the others wait. Belongs to one event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.running = 0
        self.waiting = 0
        self._changed = asyncio.Condition()
        self._closed = False

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """Wait for admission, and hold a place until the block ends.

        Raises:
            OverloadedError: The request is not admitted.
        """
        if self.waiting >= self.limits.waiting:
            raise OverloadedError(f"{self.waiting} requests are waiting already: try again later")
        async with self._changed:
            self.waiting += 1
            try:
                async with asyncio.timeout(self.limits.waiting_seconds):
                    await self._changed.wait_for(lambda: self._closed or self.running < self.limits.answers)
            except TimeoutError as error:
                raise OverloadedError("no answer could be started in time: try again later") from error
            finally:
                self.waiting -= 1
            if self._closed:
                raise OverloadedError("the server is stopping")
            self.running += 1
        try:
            yield
        finally:
            async with self._changed:
                self.running -= 1
                self._changed.notify_all()

    async def close(self) -> None:
        """Refuse all requests from now on, those that wait included, and return when the running ones have ended."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self.running == 0)
