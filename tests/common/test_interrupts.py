"""Ctrl-C: one sentence, wherever the process is."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import psutil
import pytest

from keylm.common.errors import StoppedError
from keylm.common.interrupts import stop_on_interrupt

STUCK = """
import signal, subprocess, time
from keylm.common.interrupts import stop_on_interrupt
# A shell starts the jobs in its background, and they their children, with Ctrl-C ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
worker = subprocess.Popen(["sleep", "1000"])
with stop_on_interrupt("stopped in `eval`", may_be_killed=True):
    while True:
        try:
            print(worker.pid, flush=True)
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
"""
"""Like a library that swallows the interrupt, beside a worker process."""


@pytest.mark.parametrize("may_be_killed", [True, False])
def test_ctrl_c_is_a_failure_with_its_exit_code(may_be_killed: bool) -> None:
    with pytest.raises(StoppedError, match="stopped here") as stopped, stop_on_interrupt("stopped here", may_be_killed):
        signal.raise_signal(signal.SIGINT)
    assert stopped.value.exit_code == 130
    assert signal.set_wakeup_fd(-1) == -1


def test_a_block_that_ends_leaves_nothing_behind() -> None:
    before = threading.active_count()
    with stop_on_interrupt("stopped here", may_be_killed=True):
        pass
    assert threading.active_count() == before


def test_a_process_that_does_not_come_back_is_ended_with_its_workers() -> None:
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    worker = psutil.Process(int(process.stdout.readline()))
    process.send_signal(signal.SIGINT)
    _, screen = process.communicate(timeout=60)
    assert process.returncode == 130
    assert screen == "\nkeylm: stopped in `eval`\n"
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
