"""Devices: the one that this rank computes on, and what differs between CPU and CUDA.

| | CPU | CUDA |
|---|---|---|
| collectives | gloo | NCCL |
| layers | eager | `torch.compile`, layer by layer |
| attention within documents | `keylm.model.document_attention` | flex attention, which skips masked blocks |
| causal attention | `keylm.model.kernels`, or torch's | torch's choice: flash attention in bfloat16 |
"""

from __future__ import annotations

import torch
from torch import nn

from keylm.common import hardware
from keylm.common.ranks import local_rank


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
    if device.type == "cuda":
        for layer in layers:
            layer.compile()


def peak_memory_bytes(device: torch.device) -> int:
    """Peak memory of this process on the device that it computes on, in bytes."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else hardware.peak_memory_bytes()
