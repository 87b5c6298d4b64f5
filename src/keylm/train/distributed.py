"""Several ranks, one model: data-parallel training by torch's own means, the same mathematics for any number of them.

Every rank takes its rows of the global batch. A gradient is the mean over the *global* number of targets, so that the
loss curve is the same for every number of ranks, up to the order of a sum.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from keylm.common.ranks import init_process_group, rank, world_size
from keylm.model.device import compile_layers, dist_backend, get_device
from keylm.model.transformer import KeyLM


@dataclass(frozen=True)
class DistContext:
    """The ranks that train together, and the device of this one."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: dist.ProcessGroup | None = None
    """What the ranks talk through; None for one alone."""

    def sum(self, *values: float) -> list[float]:
        """Each value, summed over all ranks in float64; every rank gets the same bits."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """The largest of each value over all ranks."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def gather(self, part: Tensor) -> Tensor:
        """The parts (n, ...) of all ranks, one after the other: (size * n, ...)."""
        if self.group is None:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part, group=self.group)
        return torch.cat(parts)

    def _reduce(self, values: tuple[float, ...], operation: dist.ReduceOp.RedOpType) -> list[float]:
        if self.group is None:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(reduced, operation, group=self.group)
        result: list[float] = reduced.tolist()
        return result


SINGLE_PROCESS = DistContext()


def init_distributed(timeout_seconds: float) -> DistContext:
    """The world of this process, by what `torchrun` put into the environment.

    Args:
        timeout_seconds: silence of another rank after which a step fails.
    """
    device = get_device()
    if world_size() == 1:
        return DistContext(device=device)
    init_process_group()
    group = dist.new_group(backend=dist_backend(device), timeout=timedelta(seconds=timeout_seconds))
    return DistContext(rank(), world_size(), device, group)


class Objective(nn.Module):
    """The loss as a module's `forward`, which is what DDP and FSDP hook into."""

    def __init__(self, model: KeyLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, segments: Tensor | None = None) -> Tensor:
        """Sum of the negative log-likelihoods of targets (B, T), in nats; without autograd, the cheaper way."""
        if torch.is_grad_enabled():
            return self.model.loss(tokens, targets, segments)
        return self.model.nll(tokens, targets).sum()


def parallelize(model: KeyLM, kind: str, world: DistContext) -> nn.Module:
    """The model's objective, on the device, for this rank; the model's parameters are spread in place for `fsdp`.

    With `ddp` every rank has the whole model, and gradients are averaged in the last backward pass of a step. With
    `fsdp` a rank keeps a slice of every parameter, gradient and optimizer state, and layers are put together when they
    are needed (`fully_shard`, FSDP2).
    """
    compile_layers(model.model.layers, world.device)
    objective = Objective(model.to(world.device))
    if world.group is None:
        return objective
    if kind == "ddp":
        return DistributedDataParallel(objective, process_group=world.group, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    mesh = DeviceMesh.from_group(world.group, world.device.type)
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def no_sync_context(objective: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Around a micro-batch: DDP sends gradients with the last one of a step; FSDP, which keeps none whole, with all."""
    if is_last or not isinstance(objective, DistributedDataParallel):
        return nullcontext()
    return objective.no_sync()


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor with the slices of all ranks, which must all ask; one that is not spread is given back as it is."""
    if not _is_spread(tensor):
        return tensor
    return tensor.full_tensor()  # type: ignore[attr-defined,no-any-return]


def distribute_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor that every rank has, spread as `parameter` is; scalars stay whole."""
    tensor = tensor.to(parameter.device)
    if not _is_spread(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(tensor.detach(), mesh, placements, src_data_rank=None)


def full_cpu_state_dict(tensors: dict[str, Tensor], world: DistContext) -> dict[str, Tensor]:
    """Copies in main memory, whole, on the first rank; nothing on the others, which must ask all the same."""
    copies = {}
    for name, tensor in tensors.items():
        complete = full_tensor(tensor.detach())
        if world.rank == 0:
            copies[name] = complete.to("cpu", copy=True).contiguous()
    return copies


def _is_spread(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")
