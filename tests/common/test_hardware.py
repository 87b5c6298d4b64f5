"""Facts about this machine, under the limits that this process has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from keylm.common import hardware


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= hardware.physical_cores() <= psutil.cpu_count()
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 32 if logical else 16)
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda process: [0, 1, 2])
    assert hardware.physical_cores() == 3
    monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda process: list(range(32)))
    assert hardware.physical_cores() == 16


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_pinned_process_has_one_core() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from keylm.common.hardware import physical_cores; print(physical_cores())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_a_machine_that_hides_its_cores_has_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: None)
    assert hardware.physical_cores() >= 1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux resets the peak")
def test_the_peak_is_that_since_the_reset() -> None:
    # In a process of its own: where models were trained, the allocator keeps what is freed.
    code = """
from keylm.common import hardware
block = b"x" * (200 * 2**20)  # not zeros, whose pages the system would not give
before, size = hardware.peak_memory_bytes(), len(block)
del block
hardware.reset_peak_memory()
print(before, size, hardware.peak_memory_bytes())
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, size, after = map(int, output.split())
    assert before >= size
    assert after < before - size // 2


def test_memory_and_disk_are_in_bytes(tmp_path: Path) -> None:
    assert 2**20 < hardware.available_memory_bytes() < 2**50
    assert 0 <= hardware.free_disk_bytes(tmp_path) == pytest.approx(psutil.disk_usage(str(tmp_path)).free, rel=0.1)


def test_common_imports_no_torch() -> None:
    code = (
        "import sys; import keylm.common.hardware, keylm.common.ranks, keylm.common.console\n"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_other_processors_compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    assert hardware.compute_dtype("auto") == torch.float32
    assert hardware.compute_dtype("bfloat16") == torch.bfloat16
