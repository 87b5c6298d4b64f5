"""The device: which one there is, and what is done differently on it. The one place that knows of CUDA.

| | processor | CUDA |
|---|---|---|
| ranks talk by | gloo | NCCL |
| layers | run as they are | compiled by `torch.compile` |
| attention within documents | `keylm.model.document_attention` | flex attention, which skips masked blocks |
| attention without documents | `keylm.model.kernels`, or torch's | torch's own choice: flash attention in bfloat16 |
"""

from __future__ import annotations

import torch
from torch import nn

from keylm.common import hardware
from keylm.common.ranks import local_rank


def get_device() -> torch.device:
    """This rank's GPU where there is one, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank())
    torch.cuda.set_device(device)
    return device


def dist_backend(device: torch.device) -> str:
    """Name of the library through which ranks on such devices talk."""
    return "nccl" if device.type == "cuda" else "gloo"


def compile_layers(layers: nn.ModuleList, device: torch.device) -> None:
    """Compile each layer in place where that pays: on a processor it was slower than plain torch."""
    if device.type == "cuda":
        for layer in layers:
            layer.compile()


def peak_memory_bytes(device: torch.device) -> int:
    """Bytes that this process held at most, on the device that it computes on."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else hardware.peak_memory_bytes()
