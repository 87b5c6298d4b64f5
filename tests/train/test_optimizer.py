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
from keylm.train.orthogonalize import orthogonalize


def test_muon_equals_torch_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same orthogonalization, since torch's has another polynomial (`test_orthogonalize` has ours)."""
    reference_module = pytest.importorskip("torch.optim._muon", reason="this torch has no Muon to compare with")
    monkeypatch.setattr(
        reference_module, "_zeropower_via_newtonschulz", lambda update, *_: orthogonalize(update[None])[0]
    )
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
        # Both orthogonalize in bfloat16, batched here and one by one there: equal up to rounding, for steps of 0.02.
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_muon_allocates_nothing_after_the_first_step() -> None:
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in [(64, 64), (96, 32), (32, 96), (64, 64)]]
    muon = Muon(params, lr=0.02, momentum=0.95, weight_decay=0.1)

    def allocated_bytes() -> int:
        """Bytes that a step allocates in blocks at least as large as the smallest Gram matrix in bfloat16."""
        for parameter in params:
            parameter.grad = torch.randn(parameter.shape)
        with torch.profiler.profile(profile_memory=True) as profiler:
            muon.step()
        by_call = [event.self_cpu_memory_usage for event in profiler.events()]
        return sum(size for size in by_call if size >= 2 * 32 * 32)

    assert allocated_bytes() > 0
    assert allocated_bytes() == 0


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
