"""The optimizer: Muon for hidden matrices and AdamW for the rest, or AdamW throughout."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from keylm import recipe
from keylm.train.distributed import ALONE, World, like, whole

_QUINTIC = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

    Matrices of one shape are orthogonalised as one batch, which the ranks of `world` divide among themselves: what
    each has done, all of them get, in bfloat16. The step is scaled by `sqrt(max(1, rows / columns))`.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float, momentum: float, weight_decay: float, world: World = ALONE
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
        looked_ahead = [whole(grad.lerp(buffer, momentum)) for buffer, grad in zip(buffers, grads, strict=True)]
        updates = self._orthogonalised(torch.stack(looked_ahead))
        scale = lr * math.sqrt(max(1.0, shape[0] / shape[1]))
        for p, update in zip(params, updates, strict=True):
            p.mul_(1 - lr * group["weight_decay"]).add_(like(update.to(p.dtype), p), alpha=-scale)

    def _orthogonalised(self, matrices: Tensor) -> Tensor:
        """Of (n, rows, columns) each rank does its share; all ranks get all."""
        share = -(-len(matrices) // self._world.size)
        first = self._world.rank * share
        mine = torch.zeros(share, *matrices.shape[1:], dtype=torch.bfloat16, device=matrices.device)
        taken = matrices[first : first + share]
        mine[: len(taken)] = orthogonalise(taken)
        return self._world.gather(mine)[: len(matrices)]


def orthogonalise(matrices: Tensor) -> Tensor:
    """Roughly the nearest orthogonal matrix to each of (n, rows, columns), by a quintic Newton-Schulz iteration.

    Singular values end between about 0.7 and 1.2, which serves as well as 1. Runs in bfloat16.
    """
    a, b, c = _QUINTIC
    x: Tensor = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Optimizer:
    """What the loop steps: one or two torch optimizers, with one schedule and one state."""

    def __init__(self, model: nn.Module, settings: recipe.Optimizer, world: World = ALONE) -> None:
        self._names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        hidden, matrices, vectors = _split(self._names, settings.kind)
        lr, decay = settings.learning_rate, settings.weight_decay
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        adamw = torch.optim.AdamW(groups, lr=lr, betas=settings.betas, eps=settings.eps, fused=True)
        self.parts: list[torch.optim.Optimizer] = [adamw]
        if hidden:
            self.parts.append(Muon(hidden, settings.muon_learning_rate, settings.momentum, decay, world))
        self._peaks = [part.defaults["lr"] for part in self.parts]

    def step(self, share_of_peak: float) -> None:
        """One update at `share_of_peak` of each peak learning rate, then drop the gradients."""
        for part, peak in zip(self.parts, self._peaks, strict=True):
            for group in part.param_groups:
                group["lr"] = peak * share_of_peak
            part.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Forget the gradients, of a step that is done or skipped."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    @property
    def learning_rate(self) -> float:
        """AdamW's learning rate in the last step."""
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
            owners[parameter].state[parameter][field] = tensor if tensor.dim() == 0 else like(tensor, parameter)


def _split(names: dict[Tensor, str], kind: str) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Parameters for Muon, for AdamW with weight decay, for AdamW without."""
    vectors = [p for p in names if p.dim() < 2]
    hidden = [p for p, name in names.items() if p.dim() == 2 and ".layers." in name]
    others = [p for p, name in names.items() if p.dim() == 2 and ".layers." not in name]
    return (hidden, others, vectors) if kind == "muon" else ([], hidden + others, vectors)
