"""A lock on a folder, so that two commands do not write to it at once."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from keylm.common.errors import UserError
from keylm.common.files import read_json, write_json


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created if it does not exist, until the block ends or the process is gone.

    The lock is advisory (flock). The system releases it with the process, so that `kill -9` leaves none behind.

    Raises:
        UserError: another process has locked the folder; the message says which, and since when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # In a file of its own: some versions of filelock empty the file that is locked before they try to lock it.
    holder = folder / ".lock.json"
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{folder} is in use by {_describe(holder)}: wait until it ends, or stop it") from error
    try:
        since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        command = shlex.join(["keylm", *sys.argv[1:]])
        write_json(holder, {"pid": os.getpid(), "host": platform.node(), "command": command, "since": since})
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _describe(holder: Path) -> str:
    """The process that holds a lock: its id, its command, and its start."""
    if not holder.exists():
        # Between its lock and this file, or between the end of this file and that of its lock.
        return "another process"
    values = read_json(holder)
    host = "" if values["host"] == platform.node() else f" on {values['host']}"
    return f"process {values['pid']}{host} (`{values['command']}`) since {values['since']}"
