"""The decoder against transformers' Qwen3, and documents in a packed sequence against documents one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from keylm.model.flops import num_matmul_parameters, num_parameters
from keylm.model.transformer import KeyLM
from keylm.recipe import load_recipe
from keylm.recipe.model import ModelConfig


@pytest.fixture
def model(tiny_model: ModelConfig) -> KeyLM:
    """Weights that leave no part of the graph without effect."""
    model = KeyLM(tiny_model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def reference(model: KeyLM) -> Qwen3ForCausalLM:
    """transformers' model with the same weights."""
    sizes = model.config.model_dump()
    config = Qwen3Config(**sizes, tie_word_embeddings=False, attention_bias=False)
    config.rope_parameters = {"rope_type": "default", "rope_theta": sizes["rope_theta"]}
    twin = Qwen3ForCausalLM(config)
    twin.load_state_dict(model.state_dict(), strict=True)
    return twin.eval()


def test_the_published_size_is_exact() -> None:
    published = load_recipe(Path(__file__).parents[2] / "recipes" / "keylm-75m.yaml")
    with torch.device("meta"):
        assert num_parameters(KeyLM(published.model)) == 75_251_200


def test_parameters_have_transformers_names_and_shapes(model: KeyLM) -> None:
    ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert ours == {name: tensor.shape for name, tensor in reference(model).state_dict().items()}


def test_logits_equal_transformers(model: KeyLM) -> None:
    tokens = torch.randint(model.config.vocab_size, (3, 40))
    with torch.no_grad():
        torch.testing.assert_close(model.logits(tokens), reference(model)(tokens).logits, rtol=1e-4, atol=1e-4)


def test_loss_and_gradients_equal_transformers(model: KeyLM) -> None:
    twin = reference(model)
    tokens = torch.randint(model.config.vocab_size, (3, 41))
    targets = tokens[:, 1:].clone()
    targets[0, :20] = -100
    logits = twin(tokens[:, :-1]).logits.flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, targets.flatten(), reduction="sum")
    loss = model.loss(tokens[:, :-1], targets)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-3)
    loss.backward()
    expected.backward()
    twins = dict(twin.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(
            parameter.grad, twins[name].grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_chunk_size_does_not_change_the_loss(model: KeyLM, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(model.config.vocab_size, (2, 31))
    whole = model.loss(tokens[:, :-1], tokens[:, 1:])
    monkeypatch.setattr("keylm.model.loss._CHUNK_ROWS", 7)
    torch.testing.assert_close(model.loss(tokens[:, :-1], tokens[:, 1:]), whole)
    nll = model.nll(tokens[:, :-1], tokens[:, 1:])
    assert nll.shape == (2, 30)
    torch.testing.assert_close(nll.sum(), whole.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_target_has_its_own_loss(dtype: torch.dtype, model: KeyLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where ignored targets stand between others, and fill up a chunk or all of them."""
    monkeypatch.setattr("keylm.model.loss._CHUNK_ROWS", 8)
    model.compute_dtype = dtype
    tokens = torch.randint(model.config.vocab_size, (3, 31))
    targets = tokens[:, 1:].clone()
    targets[torch.rand(targets.shape) < 0.5] = -100
    targets[2] = -100
    with torch.no_grad():
        logits = (model(tokens[:, :-1]) @ model.lm_head.weight.to(dtype).T).float()
    expected = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    torch.testing.assert_close(
        model.nll(tokens[:, :-1], targets), expected, rtol=2e-2 if dtype.itemsize == 2 else 1e-4, atol=1e-3
    )
    assert not model.nll(tokens[:, :-1], torch.full_like(targets, -100)).any()


def test_packed_documents_do_not_see_each_other(model: KeyLM) -> None:
    first, second = torch.randint(300, (1, 13)), torch.randint(300, (1, 20))
    document_ids = torch.tensor([[0] * 13 + [1] * 20])
    with torch.no_grad():
        packed = model(torch.cat([first, second], dim=1), document_ids)
        torch.testing.assert_close(packed[:, :13], model(first), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(packed[:, 13:], model(second), rtol=1e-4, atol=1e-5)


def test_matmul_parameters_are_the_linear_layers(model: KeyLM) -> None:
    linears = [m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert num_matmul_parameters(model.config) == sum(linears)
