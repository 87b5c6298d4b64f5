"""The lock on a folder, against other processes and against a kill."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keylm.common.errors import UserError
from keylm.common.folder_lock import lock_folder

HOLD = """
import sys, time
from pathlib import Path
from keylm.common.folder_lock import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    """Another process that has locked the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_process_is_told_which_has_the_folder_and_since_when(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as process:
        sentence = rf"run is in use by process {process.pid} \(`keylm .*`\) since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d"
        for _ in range(2):
            with pytest.raises(UserError, match=sentence), lock_folder(tmp_path / "run"):
                pass
        process.kill()


def test_a_kill_leaves_no_lock(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.kill()
    with lock_folder(tmp_path):
        pass
    with lock_folder(tmp_path):
        pass


def test_an_error_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lock_folder(tmp_path):
        raise ZeroDivisionError
    with lock_folder(tmp_path), pytest.raises(UserError, match="is in use by process"), lock_folder(tmp_path):
        pass
