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

_QUINTIC = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Matrices of one shape are orthogonalised as one batch, which the ranks of `world` divide among themselves: what
    each has done, all of them get. The step is scaled by `sqrt(max(1, rows / columns))`.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        world: DistContext = SINGLE_PROCESS,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._world = world

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            params = sorted((p for p in group["params"] if p.grad is not None), key=lambda p: tuple(p.shape))
            for shape, alike in groupby(params, key=lambda p: tuple(p.shape)):
                self._step_alike(list(alike), shape, group)

    def _step_alike(self, params: list[Tensor], shape: tuple[int, ...], group: dict[str, Any]) -> None:
        momentum, lr = group["momentum"], group["lr"]
        grads = [p.grad for p in params if p.grad is not None]
        buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in params]
        for buffer, grad in zip(buffers, grads, strict=True):
            buffer.lerp_(grad, 1 - momentum)
        looked_ahead = [full_tensor(grad.lerp(buffer, momentum)) for buffer, grad in zip(buffers, grads, strict=True)]
        updates = self._orthogonalised(torch.stack(looked_ahead))
        scale = lr * math.sqrt(max(1.0, shape[0] / shape[1]))
        for p, update in zip(params, updates, strict=True):
            self._apply(p, distribute_like(update.to(p.dtype), p), lr, scale, group["weight_decay"])

    def _apply(self, p: Tensor, update: Tensor, lr: float, scale: float, decay: float) -> None:
        """Decay a matrix and take a step of `scale` against `update`: apart, so that a variant can be tried."""
        p.mul_(1 - lr * decay).add_(update, alpha=-scale)

    def _orthogonalised(self, matrices: Tensor) -> Tensor:
        """Of (n, rows, columns) each rank does its share; all ranks get all."""
        share = -(-len(matrices) // self._world.size)
        first = self._world.rank * share
        taken = orthogonalize(matrices[first : first + share])
        mine = taken.new_zeros(share, *matrices.shape[1:])
        mine[: len(taken)] = taken
        return self._world.gather(mine)[: len(matrices)]


def orthogonalize(matrices: Tensor) -> Tensor:
    """Roughly the nearest orthogonal matrix to each of (n, rows, columns), by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2, which serves as well as 1. Runs in bfloat16, which is precise enough,
    or in float32 where the processor has no instructions for that: bfloat16 products take 35 times as long there.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrices.to(compute_dtype("auto"))
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """What the loop steps: one or two torch optimizers, with one schedule and one state."""

    def __init__(
        self, model: KeyLM, settings: OptimizerConfig, batch_tokens: int, world: DistContext = SINGLE_PROCESS
    ) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        peaks, decay = peak_learning_rates(settings, model.config.hidden_size, batch_tokens), settings.weight_decay
        found = _by_role(self._names)
        self.parts: list[torch.optim.Optimizer] = []
        if settings.type == "muon":
            self.parts.append(Muon(found.pop("hidden"), peaks["hidden"], settings.momentum, decay, world))
        groups = [
            {"params": params, "lr": peaks[role], "weight_decay": 0.0 if role == "norm" else decay}
            for role, params in found.items()
        ]
        self.parts.append(torch.optim.AdamW(groups, betas=settings.betas, eps=settings.eps, fused=True))
        for part in self.parts:
            for group in part.param_groups:
                group["peak"] = group["lr"]

    def step(self, share_of_peak: float) -> None:
        """One update at `share_of_peak` of each peak learning rate, then drop the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["peak"] * share_of_peak
            part.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients, of a step that is done or skipped."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """The hidden matrices' learning rate in the last step."""
        return float(self.parts[0].param_groups[0]["lr"])

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the state, by `parameter name/state name`."""
        return {
            f"{self._names[parameter]}/{key}": tensor
            for part in self.parts
            for parameter, state in part.state.items()
            for key, tensor in state.items()
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave, made whole."""
        parameters = {name: parameter for parameter, name in self._names.items()}
        owners = {p: part for part in self.parts for group in part.param_groups for p in group["params"]}
        for key, tensor in tensors.items():
            name, _, field = key.rpartition("/")
            parameter = parameters[name]
            owners[parameter].state[parameter][field] = (
                tensor if tensor.dim() == 0 else distribute_like(tensor, parameter)
            )


def _by_role(names: dict[Tensor, str]) -> dict[str, list[Tensor]]:
    """The `hidden` matrices, the `embedding`, the `head`, and the `norm` vectors."""
    found: dict[str, list[Tensor]] = {"hidden": [], "embedding": [], "head": [], "norm": []}
    for parameter, name in names.items():
        found[_role(parameter, name)].append(parameter)
    return found


def _role(parameter: Tensor, name: str) -> str:
    if parameter.dim() < 2:
        return "norm"
    if ".layers." in name:
        return "hidden"
    return "head" if "lm_head" in name else "embedding"
