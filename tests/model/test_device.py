"""What depends on the device, tested on the CPU: the kernels for GPUs compute the same as the others."""

from __future__ import annotations

import shutil

import pytest
import torch

from keylm.model.attention import attention, block_mask
from keylm.model.device import compile_layers, dist_backend, get_device
from keylm.model.initialization import init_model
from keylm.recipe.model import ModelConfig


def test_cpu_is_the_device_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert get_device() == torch.device("cpu")
    assert dist_backend(get_device()) == "gloo"
    assert dist_backend(torch.device("cuda")) == "nccl"


def test_flex_attention_equals_a_boolean_mask() -> None:
    q, k, v = torch.randn(2, 4, 32, 8), torch.randn(2, 2, 32, 8), torch.randn(2, 2, 32, 8)
    document_ids = torch.tensor([[0] * 5 + [1] * 20 + [2] * 7, [0] * 31 + [1]])
    alike = document_ids[:, None, :, None] == document_ids[:, None, None, :]
    plain = attention(q, k, v, alike & torch.ones(32, 32, dtype=torch.bool).tril())
    blocks = attention(q, k, v, block_mask(document_ids))
    torch.testing.assert_close(plain, blocks)
    assert not torch.allclose(plain, attention(q, k, v, None))


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
