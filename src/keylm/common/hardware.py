"""What this machine can do: the limit that training speed is held against."""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path

import torch


def compute_dtype(asked: str) -> torch.dtype:
    """The dtype of matrix products: the one asked for, or for `auto` bfloat16 where there are instructions for it.

    Decided by what the processor is, never by a measurement, so that a resumed run computes as it did before.
    """
    if asked != "auto":
        return torch.bfloat16 if asked == "bfloat16" else torch.float32
    fast = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32


def reset_peak_memory() -> None:
    """Start counting the peak anew, where the system can (Linux)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def peak_memory() -> int:
    """Bytes of main memory that this process held at most since `reset_peak_memory`."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next training step; elsewhere nothing changes.

    It gives large blocks back to the system and asks for them again, tens of thousands of pages in every step, which
    the system clears each time. The numbers are those of `mallopt(3)`: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-3, 2**25)


def describe_hardware() -> dict[str, str | int]:
    """Processor, cores and system, for reports."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in _lines(cpuinfo) if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def physical_cores() -> int:
    """Cores to compute on; the second thread of a core would only get in the way of the first."""
    cores = {path.read_text() for path in Path("/sys/devices/system/cpu").glob("cpu*/topology/thread_siblings_list")}
    return min(len(cores) or _logical_cores(), _logical_cores())


def _logical_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
