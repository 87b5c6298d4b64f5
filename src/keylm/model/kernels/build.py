"""Compile `kernels.cpp` for this processor, once, and load it. Where that is impossible, torch does the work."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import warnings
from pathlib import Path

import torch
from torch import Tensor

from keylm.common.file_cache import cached_file
from keylm.common.hardware import describe_hardware

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC"]
# No other code calls the functions that take or return vectors, so it does not matter how they are passed.
_FLAGS += ["-Wno-psabi"]
# Compilers prefer 256 bits by default, even where there are registers of 512.
_X86_FLAGS = ["-mprefer-vector-width=512"]
# Mangled names of functions in `at::native::cpublas`, which torch exports but has no Python API for.
_BRGEMM = "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb"
_BRGEMM_RELEASE = "_ZN2at6native7cpublas14brgemm_releaseEb"
_COULD_PACK = "_ZN2at6native7cpublas10could_packEN3c1010ScalarTypeE"
_BFLOAT16 = ctypes.c_int8(15)
"""bfloat16 in the enum `c10::ScalarType`."""


@functools.cache
def kernel_library() -> ctypes.CDLL | None:
    """Load the compiled kernels, compiling them first if needed.

    The library is cached in `$XDG_CACHE_HOME/keylm` (default: `~/.cache/keylm`), under a hash of everything that it
    depends on: source, compiler, flags, processor and its instruction sets.

    Returns:
        None if there is no C++ compiler (`$CXX`, `g++` or `c++`), or, with a warning, if it fails. None outside of
            Linux too: Apple's compiler has no OpenMP, and on Windows symbols cannot be left to be resolved by torch's
            libraries.
    """
    if platform.system() != "Linux":
        return None
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    flags = [*_FLAGS, *(_X86_FLAGS if platform.machine() == "x86_64" else [])]
    processor = [describe_hardware()["processor"], instruction_sets()]
    key = repr([_SOURCE.read_text(encoding="utf-8"), compiler, flags, processor])
    name = f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    try:
        return ctypes.CDLL(str(cached_file(name, ".so", functools.partial(_compile_kernels, compiler, flags))))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(f"cannot build {_SOURCE.name}, training is slower without it: {reason}", stacklevel=2)
        return None


ProductFunctions = tuple[ctypes.c_void_p, ctypes.c_void_p]
"""A product of small bfloat16 matrices, and the function that releases its state afterwards."""


def product_functions() -> ProductFunctions:
    """The functions that blockwise attention is made of: torch's where it has fast ones, ours elsewhere."""
    return torch_products() or own_products()


@functools.cache
def torch_products() -> ProductFunctions | None:
    """Torch's `brgemm`, which is oneDNN's; None without AMX, where `could_pack(bfloat16)` is false."""
    try:
        torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        could_pack, brgemm, release = (getattr(torch_cpu, name) for name in (_COULD_PACK, _BRGEMM, _BRGEMM_RELEASE))
    except (AttributeError, OSError):
        # The names are private to torch: another release may have others, and another system another library.
        return None
    could_pack.restype = ctypes.c_bool
    if not could_pack(_BFLOAT16):
        return None
    return ctypes.cast(brgemm, ctypes.c_void_p), ctypes.cast(release, ctypes.c_void_p)


def own_products() -> ProductFunctions:
    """`block_product` of `kernels.cpp`, for processors with AVX512-BF16 alone, or without. Needs `kernel_library`."""
    kernels = kernel_library()
    assert kernels is not None
    return ctypes.cast(kernels.block_product, ctypes.c_void_p), ctypes.cast(kernels.block_release, ctypes.c_void_p)


def call_kernel(name: str, *arguments: Tensor | ctypes.c_void_p | float | None) -> None:
    """Call a compiled kernel. Contiguous tensors are passed by address, ints as int64, floats as float32."""
    kernels = kernel_library()
    assert kernels is not None
    getattr(kernels, name)(*map(_to_c, arguments))


def _to_c(argument: Tensor | ctypes.c_void_p | float | None) -> object:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def instruction_sets() -> list[str]:
    """The processor's flags as the system gives them, sorted; empty where it gives none."""
    # The same model has others in another virtual machine.
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return sorted(flags[0].split()) if flags else []


def _compile_kernels(compiler: str, flags: list[str], path: Path) -> None:
    compiled = path.with_suffix(".o")
    _run([compiler, *flags, "-c", str(_SOURCE), "-o", str(compiled)])
    # Link without OpenMP, so that its symbols resolve to the runtime that torch has loaded: one thread pool, not two.
    _run([compiler, "-shared", str(compiled), "-o", str(path)])


def _run(command: list[str]) -> None:
    # In a session of its own: Ctrl-C would end the compiler, and training would do without the kernels.
    subprocess.run(command, check=True, capture_output=True, text=True, start_new_session=True)
