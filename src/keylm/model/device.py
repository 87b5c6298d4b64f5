"""Devices: the one that this rank computes on, and what differs between CPU and CUDA.

| | CPU | CUDA |
|---|---|---|
| collectives | gloo | NCCL |
| layers | eager | `torch.compile`, layer by layer |
| attention within documents | `keylm.model.document_attention` | flex attention, which skips masked blocks |
| cross entropy | `keylm.model.kernels`, or plain torch | compiled by `torch.compile` |
| causal attention | `keylm.model.kernels`, or torch's | torch's choice: flash attention in bfloat16 |
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from keylm.common import hardware
from keylm.common.ranks import local_rank

Result = TypeVar("Result")


def get_device() -> torch.device:
    """The GPU of this rank if there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank())
    # Otherwise every rank of a machine would allocate on its first GPU as well.
    torch.cuda.set_device(device)
    return device


def dist_backend(device: torch.device) -> str:
    """Name of the `torch.distributed` backend for a device."""
    return "nccl" if device.type == "cuda" else "gloo"


def compile_layers(layers: nn.ModuleList, device: torch.device) -> None:
    """Compile each layer in place on CUDA. On CPUs this was slower than eager mode."""
    if device.type != "cuda":
        return
    # All layers share one code object, whose compiled variants count together: those for training and validation, with
    # and without documents, each for the shapes of several phases. Beyond the limit, torch falls back to eager mode,
    # in which flex attention computes all scores.
    torch._dynamo.config.recompile_limit = 64
    for layer in layers:
        layer.compile(dynamic=False)


@functools.cache
def compiled(function: Callable[..., Result]) -> Callable[..., Result]:
    """`torch.compile` of a function, compiled once for each of its shapes and the same at every call.

    Asked for where it is called: the compiler takes a second to load, which a module that the CPU uses need not spend.
    """
    return torch.compile(function, dynamic=False)


def copy_to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor from main memory to a device. On CUDA, this does not wait for what the GPU has to do before."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def use_deterministic_algorithms() -> None:
    """Make every later operation of this process give the same bits in every run on the same device.

    CPUs do so anyway. On CUDA, it costs speed.
    """
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Torch prefers cuDNN's attention on Hopper, and has no deterministic form of its gradient.
    torch.backends.cuda.enable_cudnn_sdp(False)
    # Without measuring, by which two runs may choose different kernels.
    torch._inductor.config.deterministic = True


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process on the device that it computes on, in bytes."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else hardware.peak_memory_bytes()
