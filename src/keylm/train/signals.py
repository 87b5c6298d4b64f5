"""Ctrl-C and SIGTERM: note the request, so that the loop can save before it stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from keylm.common.errors import KeyLMError


class TrainingStoppedError(KeyLMError):
    """Training was stopped from outside, after saving. Exit code 128 and the signal's number, as shells have it."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class StopRequest:
    """Whether someone asked to stop."""

    number = 0
    """The signal by which someone asked, or 0."""

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Note the request; a second Ctrl-C stops at once. SIGTERM may come twice: a scheduler and torchrun send it."""
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Turn SIGINT and SIGTERM into a flag while the block runs."""
    stop = StopRequest()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
