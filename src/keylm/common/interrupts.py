"""Ctrl-C in the middle of work that may be cut off at any instant."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from keylm.common.errors import StoppedError

_GRACE_SECONDS = 2.0


@contextmanager
def stop_on_interrupt(message: str, may_be_killed: bool) -> Iterator[None]:
    """Turn Ctrl-C inside the block into a `StoppedError`.

    Python raises `KeyboardInterrupt` when the main thread is between two instructions. Deep in a library, or waiting
    for worker processes that the same Ctrl-C ended, it may not get there for minutes.

    Args:
        message: What to tell the user.
        may_be_killed: Whether the process may end after two seconds wherever it is, because what it has written is
            whole at any instant.

    Raises:
        StoppedError: on Ctrl-C.
    """
    try:
        # Signals reach the main thread only.
        if may_be_killed and threading.current_thread() is threading.main_thread():
            with _kill_after_grace(message):
                yield
        else:
            yield
    except KeyboardInterrupt:
        raise StoppedError(message, signal.SIGINT) from None


@contextmanager
def _kill_after_grace(message: str) -> Iterator[None]:
    """End the process, with `message`, if the block has not ended two seconds after Ctrl-C."""
    numbers, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    left = threading.Event()

    def watch() -> None:
        # Python writes a signal's number here at once, in whatever code the main thread is.
        while number := numbers.recv(1):
            if number[0] == signal.SIGINT and not left.wait(_GRACE_SECONDS):
                _end_process(message)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    previous = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(previous)
        wakeup.close()
        watcher.join()
        numbers.close()


def _end_process(message: str) -> None:
    import psutil

    # Its workers would be left behind: nobody ends them in its place.
    for child in psutil.Process().children(recursive=True):
        child.kill()
    print(f"\nkeylm: {message}", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)
