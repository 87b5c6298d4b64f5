"""Ctrl-C and SIGTERM, turned into a request that the training loop serves once everything is saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from keylm.common.console import console
from keylm.common.errors import StoppedError


class TrainingStoppedError(StoppedError):
    """Training was stopped by a signal, after saving."""


class StopRequest:
    """Whether training was asked to stop."""

    number = 0
    """Number of the signal received, or 0."""

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: record it. A second Ctrl-C interrupts at once."""
        # A second SIGTERM does not: both the scheduler and torchrun send one.
        if self.number and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.number:
            # DPO and GRPO may take a minute to the end of their step.
            console.print("stopping, and saving first; another Ctrl-C gives that up")
        self.number = number


@contextmanager
def catch_stop_signals() -> Iterator[StopRequest]:
    """Record SIGINT and SIGTERM while the block runs, instead of acting on them.

    Raises:
        TrainingStoppedError: at the end of the block, for a signal that came too late for the block to serve it.
    """
    stop = StopRequest()
    previous = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stop.number:
        raise TrainingStoppedError("stopped after the last step, saved: run the same command to resume", stop.number)
