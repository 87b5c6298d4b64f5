"""Facts about this machine: cores, memory, and the dtype that its processor computes fastest in."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch


def compute_dtype(setting: str, device: torch.device | None = None) -> torch.dtype:
    """The dtype of matrix products for the recipe's `compute_dtype`: `float32`, `bfloat16`, or `auto`.

    `auto` is bfloat16 where the device that computes, by default the CPU, has instructions for it: a processor with
    AVX512-BF16 or AMX, or a GPU from Ampere on. It depends on the device and never on a measurement, so that a resumed
    run computes with the same dtype.
    """
    import torch

    if setting != "auto":
        return torch.bfloat16 if setting == "bfloat16" else torch.float32
    if device is not None and device.type == "cuda":
        # Older GPUs emulate bfloat16, several times as slowly as they compute in float32.
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    # On other processors these functions may be missing, and bfloat16 there has not been measured.
    is_x86 = platform.machine() in ("x86_64", "AMD64")
    has_bfloat16 = is_x86 and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if has_bfloat16 else torch.float32


def reset_peak_memory() -> None:
    """Restart the measurement of `peak_memory_bytes`. Only Linux can do this."""
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5")


def peak_memory_bytes() -> int:
    """Peak resident memory of this process, in bytes: since `reset_peak_memory` on Linux, since its start elsewhere."""
    # psutil knows a process's peak on Windows only, and getrusage's cannot be reset.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    windows_peak = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows_peak is not None:
        return int(windows_peak)
    import resource

    # Bytes on macOS. (Linux counts in KiB, but has /proc.)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident_memory_bytes() -> int:
    """Memory that this process has now, in bytes."""
    return int(psutil.Process().memory_info().rss)


def available_memory_bytes() -> int:
    """Memory that a new process can have without swapping, in bytes."""
    return int(psutil.virtual_memory().available)


def free_disk_bytes(folder: Path) -> int:
    """Free space on the disk of `folder`, in bytes."""
    return int(psutil.disk_usage(str(folder)).free)


def busy_cores(seconds: float = 0.5) -> float:
    """How many of the cores that this process may use were busy while it waited for so many seconds."""
    percent = psutil.cpu_percent(seconds, percpu=True)
    process = psutil.Process()
    usable = process.cpu_affinity() if hasattr(process, "cpu_affinity") else range(len(percent))
    return sum(percent[core] for core in usable) / 100


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step or batch. No effect with other C libraries.

    By default it returns large blocks to the system and requests them again, tens of thousands of pages in every
    step, and the system clears each of them.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3).
        libc.mallopt(-1, 2**31 - 1)
        libc.mallopt(-3, 2**25)


def describe_hardware() -> dict[str, str | int]:
    """Processor, number of logical cores, and system, for reports."""
    # psutil has no name of the processor, and outside of Linux platform's is good enough.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model_names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": model_names[0] if model_names else platform.processor() or platform.machine(),
        "cores": psutil.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
    }


def physical_cores() -> int:
    """Number of physical cores that this process may use, at least 1.

    Matrix products gain nothing from the second thread of a core.
    """
    # Containers and job schedulers pin a process to some of the cores; psutil counts those of the whole machine.
    process = psutil.Process()
    usable = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)
