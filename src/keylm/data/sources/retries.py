"""Retrying requests that failed for a reason that may pass: a busy server, a lost connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from threading import Event
from typing import TypeVar

from keylm.common.console import console

T = TypeVar("T")

TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP status codes after which another try may succeed."""


class TransientError(Exception):
    """A failure after which another try may succeed.

    Args:
        reason: what failed.
        wait_seconds: how long the server asks to wait, if it does.
        progressed: the try brought something new, so it does not count: a large file may come in many pieces.
    """

    def __init__(self, reason: str, wait_seconds: float | None = None, progressed: bool = False) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds
        self.progressed = progressed


@dataclass(frozen=True)
class Retries:
    """How often to try, and how long to wait in between: exponential backoff."""

    tries: int = 6
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    """Limit of the backoff. A server that asks for a longer wait is obeyed."""

    def call(self, action: Callable[[], T], stopped: Event | None = None) -> T:
        """The result of `action`, tried until it succeeds; prints one line per failure.

        Args:
            action: what to try; only a `TransientError` is retried.
            stopped: once set, there are no more tries, and a wait ends at once.

        Raises:
            TransientError: the last try failed too, or `stopped` was set.
        """
        stopped = stopped or Event()
        failures = 0
        while True:
            try:
                return action()
            except TransientError as failure:
                # A failure with progress does not count, but does not reset the count either.
                failures += not failure.progressed
                if failures >= self.tries or stopped.is_set():
                    raise
                wait = failure.wait_seconds
                if wait is None:
                    wait = min(self.first_wait_seconds * 2.0 ** max(failures - 1, 0), self.longest_wait_seconds)
                then = f"try {failures + 1} of {self.tries}" if failures else "then goes on"
                console.print(f"hub: {failure}, waits {wait:.3g} s, {then}", markup=False, soft_wrap=True)
                # Not `sleep`: a reader that has enough documents should not wait for a minute to end.
                if stopped.wait(wait):
                    raise


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, if it does.

    `Retry-After` is a number or a date (RFC 9110); the hub itself sends `RateLimit: ...;r=0;t=SECONDS` (an IETF draft).
    """
    after = headers.get("retry-after", "").strip()
    if after.isdigit():
        return float(after)
    try:
        return max((parsedate_to_datetime(after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        limit = re.search(r"\bt=(\d+)", headers.get("ratelimit", ""))
        return float(limit[1]) if limit else None
