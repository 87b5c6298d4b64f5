"""The optimizer: Muon for hidden matrices and AdamW for the rest, or AdamW throughout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from keylm.model.transformer import KeyLM
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.distributed import SINGLE_PROCESS, DistContext, distribute_like, full_tensor
from keylm.train.learning_rates import peak_learning_rates
from keylm.train.orthogonalize import Workspace, orthogonalize_

# Matrices are orthogonalized in batches of about this many elements: they and their Gram matrices stay in the caches of
# a core, and the memory for them is small beside the model.
_BATCH_ELEMENTS = 2**22


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for matrices.

    Matrices of one shape are orthogonalized in batches, which the ranks share: each does a part, and all get all. The
    update is scaled by `sqrt(max(1, rows / columns))`. A step uses the gradients as scratch memory, as torch's SGD
    does, and allocates none after the first.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        dist: DistContext = SINGLE_PROCESS,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._dist = dist
        self._workspace = Workspace(self.param_groups[0]["params"][0].device)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient. The gradients are overwritten."""
        for group in self.param_groups:
            # `sorted` is stable and `groupby` needs it: every rank gets the same batches in the same order.
            params = sorted((p for p in group["params"] if p.grad is not None), key=lambda p: tuple(p.shape))
            for shape, same_shape in groupby(params, key=lambda p: tuple(p.shape)):
                pending = list(same_shape)
                batch_size = max(1, _BATCH_ELEMENTS // math.prod(shape)) * self._dist.world_size
                for first in range(0, len(pending), batch_size):
                    self._step_batch(pending[first : first + batch_size], shape, group)

    def _step_batch(self, params: list[Tensor], shape: tuple[int, ...], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - momentum)
        torch._foreach_lerp_(grads, buffers, momentum)
        # Orthogonalization needs whole matrices: the shards that FSDP leaves on each rank are gathered first.
        nesterov = [full_tensor(grad) for grad in grads]
        # Each rank orthogonalizes its part of the batch. Parts are padded with zeros to one size for the gather.
        part_size = -(-len(params) // self._dist.world_size)
        own = nesterov[self._dist.rank * part_size :][:part_size]
        part = self._workspace.take("matrices", (part_size, *shape))
        part[len(own) :].zero_()
        for matrix, copy in zip(own, part, strict=False):
            copy.copy_(matrix)
        updates = self._dist.gather(orthogonalize_(part, self._workspace))[: len(params)]
        for grad, update in zip(grads, updates, strict=True):
            grad.copy_(distribute_like(update, grad))
        self._apply(params, grads, lr, lr * math.sqrt(max(1.0, shape[0] / shape[1])), group["weight_decay"])

    def _apply(self, params: list[Tensor], updates: list[Tensor], lr: float, scale: float, weight_decay: float) -> None:
        """Decay matrices and subtract `scale * update`. A method of its own, so that variants can override it."""
        torch._foreach_mul_(params, 1 - lr * weight_decay)
        torch._foreach_add_(params, updates, alpha=-scale)


class Optimizer:
    """One or two torch optimizers behind one schedule and one state dict: Muon and AdamW, or AdamW alone."""

    def __init__(
        self, model: KeyLM, config: OptimizerConfig, batch_tokens: int, dist: DistContext = SINGLE_PROCESS
    ) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        by_role: dict[str, list[Tensor]] = {"hidden": [], "embedding": [], "head": [], "norm": []}
        for parameter, name in self._names.items():
            by_role[parameter_role(name, parameter)].append(parameter)
        peaks = peak_learning_rates(config, model.config.hidden_size, batch_tokens)
        self.parts: list[torch.optim.Optimizer] = []
        if config.type == "muon":
            hidden = by_role.pop("hidden")
            self.parts.append(Muon(hidden, peaks["hidden"], config.momentum, config.weight_decay, dist))
        # Norms are not decayed, as is customary: decay would pull their scale of 1 to 0.
        groups = [
            {"params": params, "lr": peaks[role], "weight_decay": 0.0 if role == "norm" else config.weight_decay}
            for role, params in by_role.items()
        ]
        self.parts.append(torch.optim.AdamW(groups, betas=config.betas, eps=config.eps, fused=True))
        for part in self.parts:
            for group in part.param_groups:
                group["peak"] = group["lr"]

    def step(self, lr_factor: float) -> None:
        """Update all parameters, at `lr_factor` times each peak learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["peak"] * lr_factor
            part.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the hidden matrices in the last step."""
        return float(self.parts[0].param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Tensor]:
        """Every tensor of the state, flat, by `parameter name/state name`, so that safetensors can hold it."""
        # torch.distributed.checkpoint.state_dict nests lists of hyperparameters, which safetensors cannot hold, and
        # runs a step of the optimizer before it sets a state.
        return {
            f"{self._names[parameter]}/{key}": tensor
            for part in self.parts
            for parameter, state in part.state.items()
            for key, tensor in state.items()
        }

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, with full tensors."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        owners = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for key, tensor in tensors.items():
            name, _, field = key.rpartition("/")
            parameter = parameters[name]
            owners[parameter].state[parameter][field] = distribute_like(tensor, parameter)


def parameter_role(name: str, parameter: Tensor) -> str:
    """Role of a parameter in `optimizer.learning_rates`: `hidden`, `embedding`, `head` or `norm`."""
    if parameter.dim() < 2:
        return "norm"
    if ".layers." in name:
        return "hidden"
    return "head" if "lm_head" in name else "embedding"
