"""What depends on the device, tested on the CPU: the kernels for GPUs compute the same as the others."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.nn.attention.flex_attention import create_block_mask

from keylm.model.attention import attention, block_mask
from keylm.model.device import compile_layers, dist_backend, get_device
from keylm.model.document_attention import document_positions
from keylm.model.initialization import init_model
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig
from keylm.recipe.optimizer import OptimizerConfig
from keylm.train.optimizer import Optimizer


@pytest.fixture
def meta_model(tiny_model: ModelConfig) -> KeyLM:
    """A model in bfloat16 on a device that is not the CPU."""
    with torch.device("meta"):
        return KeyLM(tiny_model, torch.bfloat16)


def test_cpu_is_the_device_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert get_device() == torch.device("cpu")
    assert dist_backend(get_device()) == "gloo"
    assert dist_backend(torch.device("cuda")) == "nccl"


def test_flex_attention_equals_a_boolean_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keylm.model.attention.compiled", lambda function: function)
    q, k, v = torch.randn(2, 4, 32, 8), torch.randn(2, 2, 32, 8), torch.randn(2, 2, 32, 8)
    document_ids = torch.tensor([[0] * 5 + [1] * 20 + [2] * 7, [0] * 31 + [1]])
    alike = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    plain = attention(q, k, v, alike & torch.ones(32, 32, dtype=torch.bool).tril())
    blocks = attention(q, k, v, block_mask(document_ids))
    torch.testing.assert_close(plain, blocks)
    assert not torch.allclose(plain, attention(q, k, v, None))


def test_other_devices_never_wait_for_the_host(meta_model: KeyLM) -> None:
    """Tensors on `meta` have no values, so whatever asks for one fails."""
    tokens = torch.zeros(2, 32, dtype=torch.long, device="meta")
    meta_model.loss(tokens, tokens).backward()
    assert all(parameter.grad is not None for parameter in meta_model.parameters())
    assert meta_model.nll(tokens, tokens).shape == (2, 32)
    assert meta_model.logits(tokens).shape == (2, 32, meta_model.config.vocab_size)
    assert document_positions(tokens).shape == (2, 32)


def test_layers_compile_whole_and_once(meta_model: KeyLM) -> None:
    for layer in meta_model.model.layers:
        layer.compile(backend="aot_eager", dynamic=False)
    tokens = torch.zeros(2, 32, dtype=torch.long, device="meta")
    torch._dynamo.reset()
    counters.clear()
    for _ in range(2):
        meta_model.loss(tokens, tokens).backward()
        meta_model.nll(tokens, tokens)
    assert not counters["graph_break"]
    # The first layer, whose `delta` has no gradient; all others; and any of them without gradients.
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_document_masks_compile_once() -> None:
    torch._dynamo.reset()
    counters.clear()
    for first in (3, 200):
        document_ids = (torch.arange(384) > first).long()[None]

        def mask_mod(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor, ids: Tensor = document_ids) -> Tensor:
            return (query >= key) & (ids[batch, query] == ids[batch, key])

        plain = create_block_mask(mask_mod, 1, None, 384, 384, device="cpu")
        assert torch.equal(block_mask(document_ids).to_dense(), plain.to_dense())
    assert counters["stats"]["unique_graphs"] == 1


def test_optimizer_state_goes_where_its_parameter_is(tiny_model: ModelConfig, meta_model: KeyLM) -> None:
    """Also AdamW's count of steps, without dimensions, which a fused step needs on the GPU (pytorch/pytorch#124133)."""
    model, config = init_model(tiny_model, 0), OptimizerConfig()
    optimizer = Optimizer(model, config, batch_tokens=64)
    tokens = torch.zeros(2, 32, dtype=torch.long)
    model.loss(tokens, tokens).backward()
    optimizer.step(1.0)
    state = optimizer.state_dict()
    assert any(tensor.dim() == 0 for tensor in state.values())
    on_meta = Optimizer(meta_model, config, batch_tokens=64)
    on_meta.load_state_dict(state)
    assert {tensor.device.type for tensor in on_meta.state_dict().values()} == {"meta"}
    assert on_meta.state_dict().keys() == state.keys()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_equal_eager_layers(tiny_model: ModelConfig) -> None:
    tokens = torch.randint(tiny_model.vocab_size, (2, 32))
    plain, compiled = init_model(tiny_model, 0), init_model(tiny_model, 0)
    compile_layers(compiled.model.layers, torch.device("cuda"))
    gradients = []
    for model in (plain, compiled):
        model.loss(tokens, tokens).backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-4, msg=name)
