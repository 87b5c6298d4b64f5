"""Muon against torch.optim.Muon, and the optimizer's state through a save."""

from __future__ import annotations

import pytest
import torch

from keylm.model.initialization import init_model
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.recipe.train import TrainConfig
from keylm.train.lr_schedule import lr_factor
from keylm.train.optimizer import Muon, Optimizer


def test_muon_equals_torch_muon() -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    shapes = [(16, 16), (24, 8), (8, 24), (16, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(parameter.detach().clone()) for parameter in ours]
    muon = Muon(ours, lr=0.02, momentum=0.95, weight_decay=0.1)
    reference = torch.optim.Muon(theirs, lr=0.02, momentum=0.95, weight_decay=0.1)
    for _ in range(5):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape)
            other.grad = one.grad.clone()
        muon.step()
        reference.step()
    for one, other in zip(ours, theirs, strict=True):
        # Both iterate in bfloat16, batched here and one by one there: equal up to its rounding, for steps of 0.02.
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


@pytest.mark.parametrize("optimizer_type", ["adamw", "muon"])
def test_optimizer_state_survives_a_save(optimizer_type: str, tiny_model: ModelConfig) -> None:
    model = init_model(tiny_model, 0)
    optimizer = Optimizer(model, OptimizerConfig(type=optimizer_type), batch_tokens=4096)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _fill_gradients(model)
    optimizer.step(1.0)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

    twin = init_model(tiny_model, 0)
    twin.load_state_dict(model.state_dict())
    restored = Optimizer(twin, OptimizerConfig(type=optimizer_type), batch_tokens=4096)
    restored.load_state_dict({name: tensor.clone() for name, tensor in optimizer.state_dict().items()})
    for one, its in ((model, optimizer), (twin, restored)):
        _fill_gradients(one)
        its.step(0.5)
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_schedule_warms_up_and_decays_to_zero() -> None:
    training = TrainConfig(
        tokens=1000, batch_tokens=10, sequence_length=10, micro_batch_tokens=10, warmup_fraction=0.1, decay_fraction=0.5
    )
    shares = [lr_factor(step, training) for step in range(training.num_steps)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[9:50] == [1.0] * 41
    assert shares[75] == pytest.approx(0.5)
    assert 0 < shares[-1] <= 0.02
    assert shares[50:] == sorted(shares[50:], reverse=True)


def _fill_gradients(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(7)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
