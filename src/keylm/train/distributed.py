"""Data-parallel training by torch's own means: DDP or FSDP2, with the same mathematics for any number of ranks.

Each rank takes its rows of the global batch. Gradients are means over the *global* number of targets, so the loss curve
is the same for any number of ranks, up to the order of summation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup, ReduceOp, all_gather, all_reduce, new_group
from torch.nn.parallel import DistributedDataParallel

from keylm.common.ranks import init_process_group, rank, world_size
from keylm.model.device import compile_layers, dist_backend, get_device
from keylm.model.transformer import KeyLM


@dataclass(frozen=True)
class DistContext:
    """The ranks that train together, and the device of this one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    group: ProcessGroup | None = None
    """The process group of collectives on tensors of `device`; None for a single process."""
    host_group: ProcessGroup | None = None
    """The same ranks for numbers in main memory: over NCCL, each would wait for all that the GPU has to do."""

    def sum(self, *values: float) -> list[float]:
        """Sum each value over all ranks, in float64. Every rank gets the same bits."""
        return self._all_reduce(values, ReduceOp.SUM)

    def max(self, *values: float) -> list[float]:
        """The maximum of each value over all ranks."""
        return self._all_reduce(values, ReduceOp.MAX)

    def gather(self, part: Tensor) -> Tensor:
        """Concatenate the parts (n, ...) of all ranks: (world_size * n, ...)."""
        if self.group is None:
            return part
        parts = [torch.empty_like(part) for _ in range(self.world_size)]
        all_gather(parts, part, group=self.group)
        return torch.cat(parts)

    def _all_reduce(self, values: tuple[float, ...], operation: ReduceOp.RedOpType) -> list[float]:
        if self.host_group is None:
            return list(values)
        reduced = torch.tensor(values, dtype=torch.float64)
        all_reduce(reduced, operation, group=self.host_group)
        result: list[float] = reduced.tolist()
        return result


SINGLE_PROCESS = DistContext()


def init_distributed(timeout_seconds: float) -> DistContext:
    """Join the other ranks that `torchrun` started, if any, as its environment variables say.

    Args:
        timeout_seconds: how long to wait for another rank in a collective before it fails.
    """
    device = get_device()
    if world_size() == 1:
        return DistContext(device=device)
    init_process_group()
    # The default group's timeout is for stages that the main process does alone; training has groups of its own.
    timeout = timedelta(seconds=timeout_seconds)
    group, host_group = (new_group(backend=backend, timeout=timeout) for backend in (dist_backend(device), "gloo"))
    return DistContext(rank(), world_size(), device, group, host_group)


class Objective(nn.Module):
    """The loss as a module's `forward`, which is what DDP and FSDP hook into."""

    def __init__(self, model: KeyLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, targets: Tensor, document_ids: Tensor | None = None) -> Tensor:
        """Sum of the negative log-likelihoods of targets (B, T), in nats.

        Without autograd, as in validation, it is computed without a gradient, which is cheaper.
        """
        if torch.is_grad_enabled():
            return self.model.loss(tokens, targets, document_ids)
        return self.model.nll(tokens, targets).sum()


def parallelize(model: KeyLM, parallel: str, dist: DistContext) -> nn.Module:
    """Move the model to this rank's device and wrap its objective for data parallelism.

    Args:
        model: its parameters become shards in place under `fsdp`.
        parallel: `ddp`: every rank holds the whole model, and gradients are averaged in the last backward pass of a
            step. `fsdp` (`fully_shard`, FSDP2): every rank holds a shard of each parameter, gradient and optimizer
            state, and layers are gathered when they are needed.
        dist: with a single process, the objective is not wrapped.
    """
    compile_layers(model.model.layers, dist.device)
    objective = Objective(model.to(dist.device))
    if dist.group is None:
        return objective
    if parallel == "ddp":
        # Views into the buckets: without them every gradient would be in memory twice.
        return DistributedDataParallel(objective, process_group=dist.group, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard

    mesh = DeviceMesh.from_group(dist.group, dist.device.type)
    # From the inside out, as FSDP2 requires: each call takes the parameters that no inner module has taken.
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def no_sync_context(objective: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Context of a micro-batch: only the last one of a step averages gradients over the ranks.

    Until then, FSDP holds the whole gradient on every rank: four bytes per parameter.
    """
    # Not `isinstance(objective, FSDPModule)`: importing it takes a second, which a single process need not spend.
    if set_gradient_sync := getattr(objective, "set_requires_gradient_sync", None):
        set_gradient_sync(is_last)
        return nullcontext()
    if is_last or not isinstance(objective, DistributedDataParallel):
        return nullcontext()
    return objective.no_sync()


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor, which all ranks have to ask for; other tensors are returned as they are."""
    if not _is_sharded(tensor):
        return tensor
    return tensor.full_tensor()  # type: ignore[attr-defined,no-any-return]


def distribute_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Shard a full tensor, which every rank has, like `parameter`; tensors of another shape stay whole."""
    tensor = tensor.to(parameter.device)
    if not _is_sharded(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    # Without a source rank nothing is sent: every rank cuts its shard out of the tensor that it has.
    return distribute_tensor(tensor.detach(), mesh, placements, src_data_rank=None)


def full_cpu_state_dict(tensors: dict[str, Tensor], dist: DistContext) -> dict[str, Tensor]:
    """Copy all tensors, gathered, to main memory of the main process; other ranks have to call it too, and get {}.

    The copies are the caller's own even where training is on the CPU, so that they can be written in the background.
    """
    # Not torch's `full_state_dict` with `cpu_offload`: on a CPU it returns the live tensors, and training would change
    # them while a checkpoint is being written.
    copies = {}
    for name, tensor in tensors.items():
        gathered = full_tensor(tensor.detach())
        if dist.rank == 0:
            copies[name] = gathered.to("cpu", copy=True).contiguous()
    return copies


def _is_sharded(tensor: Tensor) -> bool:
    # Not `isinstance(tensor, DTensor)`: importing DTensor takes over a second, which a single process need not spend.
    return hasattr(tensor, "full_tensor")
