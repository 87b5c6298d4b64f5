"""The optimizer: Muon for hidden matrices and AdamW for the rest, or AdamW throughout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from keylm.common.hardware import compute_dtype
from keylm.model.transformer import KeyLM
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.distributed import SINGLE_PROCESS, DistContext, distribute_like, full_tensor
from keylm.train.learning_rates import peak_learning_rates

# Jordan et al.: as steep at zero as possible, since five steps must lift the small singular values too. They then end
# around 1, not at 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/), for matrices.

    Matrices of one shape are orthogonalized as one batch, which the ranks share: each does a part, and all get all. The
    update is scaled by `sqrt(max(1, rows / columns))`.
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

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            # `sorted` is stable and `groupby` needs it: every rank gets the same batches in the same order.
            params = sorted((p for p in group["params"] if p.grad is not None), key=lambda p: tuple(p.shape))
            for shape, same_shape in groupby(params, key=lambda p: tuple(p.shape)):
                self._step_same_shape(list(same_shape), shape, group)

    def _step_same_shape(self, params: list[Tensor], shape: tuple[int, ...], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        grads = [p.grad for p in params if p.grad is not None]
        buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in params]
        for buffer, grad in zip(buffers, grads, strict=True):
            buffer.lerp_(grad, 1 - momentum)
        # Orthogonalization needs whole matrices: the shards that FSDP leaves on each rank are gathered first.
        nesterov = torch.stack(
            [full_tensor(grad.lerp(buf, momentum)) for buf, grad in zip(buffers, grads, strict=True)]
        )
        # Each rank orthogonalizes its part of the batch. Parts are padded with zeros to one size for the gather.
        part_size = -(-len(nesterov) // self._dist.world_size)
        first = self._dist.rank * part_size
        own = orthogonalize(nesterov[first : first + part_size])
        part = own.new_zeros(part_size, *shape)
        part[: len(own)] = own
        updates = self._dist.gather(part)[: len(nesterov)]
        scale = lr * math.sqrt(max(1.0, shape[0] / shape[1]))
        for p, update in zip(params, updates, strict=True):
            self._apply(p, distribute_like(update.to(p.dtype), p), lr, scale, group["weight_decay"])

    def _apply(self, p: Tensor, update: Tensor, lr: float, scale: float, weight_decay: float) -> None:
        """Decay a matrix and subtract `scale * update`. A method of its own, so that variants can override it."""
        p.mul_(1 - lr * weight_decay).add_(update, alpha=-scale)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Approximate the nearest orthogonal matrix to each of (n, rows, columns) by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2, which works as well as 1. Runs in bfloat16, which is precise enough,
    or in float32 on processors without bfloat16 instructions, where bfloat16 products take 35 times as long.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrices.to(compute_dtype("auto"))
    is_tall = x.shape[1] > x.shape[2]
    # The Gram matrix of the shorter side is the smaller one.
    x = x.mT if is_tall else x
    # The Frobenius norm bounds the largest singular value, and the iteration converges from at most 1. The clamp keeps
    # a matrix of zeros from becoming NaN.
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if is_tall else x


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
