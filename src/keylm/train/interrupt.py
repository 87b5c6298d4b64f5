"""Ctrl-C and SIGTERM: finish the step, save, then stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from keylm.errors import KeyLMError


class TrainingStoppedError(KeyLMError):
    """Training was stopped by the user, after saving. Exit code 130, as shells have it."""

    exit_code = 130


class Stop:
    """Whether someone asked to stop."""

    asked = False

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        """Note the request; a second one stops at once."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def watch() -> Iterator[Stop]:
    """Turn SIGINT and SIGTERM into a flag while the block runs."""
    stop = Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
