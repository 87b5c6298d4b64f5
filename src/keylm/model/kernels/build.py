"""Compile `kernels.cpp` for this processor, once, and load it. Where that cannot be, torch does the work."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from keylm.common.hardware import describe_hardware

_SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ["-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC"]
_WIDE = ["-mprefer-vector-width=512"]
_PRODUCT = "_ZN2at6native7cpublas6brgemmEllllllbPKN3c108BFloat16ES5_Pfb"
_RELEASE = "_ZN2at6native7cpublas14brgemm_releaseEb"
_COULD_PACK = "_ZN2at6native7cpublas10could_packEN3c1010ScalarTypeE"
_BFLOAT16 = ctypes.c_int8(15)
"""bfloat16's number among torch's scalar types."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None without a C++ compiler (`$CXX`, `g++` or `c++`), or if it fails, with a warning.

    Kept in `$XDG_CACHE_HOME/keylm` (by default `~/.cache/keylm`), under a name made of all that the result depends on.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        return None
    flags = [*_FLAGS, *(_WIDE if platform.machine() == "x86_64" else [])]
    key = repr([_SOURCE.read_text(encoding="utf-8"), compiler, flags, describe_hardware()["processor"]])
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "keylm"
    path = folder / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    try:
        if not path.exists():
            _compile(compiler, flags, path)
        return ctypes.CDLL(str(path))
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        warnings.warn(f"cannot build {_SOURCE.name}, training is slower without it: {reason}", stacklevel=2)
        return None


@functools.cache
def block_products() -> tuple[ctypes.c_void_p, ctypes.c_void_p] | None:
    """Torch's products of small bfloat16 matrices and how to end a row of them; None where it has no fast ones."""
    torch_cpu = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    try:
        could_pack, *found = (getattr(torch_cpu, name) for name in (_COULD_PACK, _PRODUCT, _RELEASE))
    except AttributeError:
        return None
    could_pack.restype = ctypes.c_bool
    if not could_pack(_BFLOAT16):
        return None
    product, release = (ctypes.cast(function, ctypes.c_void_p) for function in found)
    return product, release


def call(name: str, *arguments: Tensor | ctypes.c_void_p | float | None) -> None:
    """Call a compiled function: contiguous tensors by address, Python's integers as int64, its floats as float32."""
    compiled = library()
    assert compiled is not None
    getattr(compiled, name)(*map(_to_c, arguments))


def _to_c(argument: Tensor | ctypes.c_void_p | float | None) -> object:
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_float(argument) if isinstance(argument, float) else argument


def _compile(compiler: str, flags: list[str], path: Path) -> None:
    """Compile beside the place and rename: several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        subprocess.run([compiler, *flags, "-c", _SOURCE, "-o", compiled], check=True, capture_output=True, text=True)
        # Linked without OpenMP: its functions are then found in the library that torch has loaded, and there is one
        # pool of threads, not two.
        subprocess.run([compiler, "-shared", compiled, "-o", linked], check=True, capture_output=True, text=True)
        linked.replace(path)
