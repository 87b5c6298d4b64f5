"""Initial weights: a function of the seed; with copying heads, able to copy before any training."""

from __future__ import annotations

import pytest
import torch

from keylm.model.initialization import init_model
from keylm.recipe.model import ModelConfig

SMALL = ModelConfig(
    vocab_size=2000,
    hidden_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    intermediate_size=64,
    max_position_embeddings=256,
)

GOLDEN_LM_HEAD = [0.0568677, 0.0985254, 0.0424701, 0.0411331]
GOLDEN_NORMS = {"q_proj": 8.763329, "k_proj": 6.208154, "v_proj": 8.398918, "o_proj": 9.428095}


def test_initial_weights_depend_on_the_seed_alone(tiny_model: ModelConfig) -> None:
    first, again, other = (init_model(tiny_model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def copied_share(config: ModelConfig) -> float:
    """For random tokens, repeated four times: how often the likeliest token, the current one excluded, is the one that
    followed before. Chance is one in 2,000."""
    model = init_model(config, seed=0).eval()
    tokens = torch.randint(2000, (8, 12)).repeat(1, 4)
    logits = model.logits(tokens)[:, 12:-1]
    logits.scatter_(2, tokens[:, 12:-1, None], float("-inf"))
    return (logits.argmax(-1) == tokens[:, 13:]).float().mean().item()


def test_copying_heads_copy_before_any_training() -> None:
    assert copied_share(SMALL) > 0.4
    assert copied_share(SMALL.model_copy(update={"initialization": "normal"})) < 0.01


def test_normal_weights_are_normal_and_outputs_zero() -> None:
    for name, weight in init_model(SMALL.model_copy(update={"initialization": "normal"}), seed=0).state_dict().items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            assert not weight.any()
        elif weight.dim() == 2:
            assert weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert weight.mean().item() == pytest.approx(0, abs=1e-3)
        else:
            assert (weight == 1).all()


def test_copying_heads_change_only_their_own_weights() -> None:
    """The first key/value group of each layer, the embedding and the head. All else is what `normal` gives."""
    copying = init_model(SMALL, seed=0).state_dict()
    normal = init_model(SMALL.model_copy(update={"initialization": "normal"}), seed=0).state_dict()
    group = {"q_proj": 128, "k_proj": 64, "v_proj": 64}
    for name, weight in copying.items():
        projection = name.split(".")[-2]
        if projection in group:
            assert torch.equal(weight[group[projection] :], normal[name][group[projection] :])
            assert not torch.equal(weight[: group[projection]], normal[name][: group[projection]])
        elif projection == "o_proj":
            assert not weight[:, 128:].any()
            assert weight[:, :128].any()
        elif projection not in ("embed_tokens", "lm_head"):
            assert torch.equal(weight, normal[name])


def test_initial_weights_have_golden_values() -> None:
    weights = init_model(SMALL, seed=0).state_dict()
    assert weights["lm_head.weight"][0, :4].tolist() == pytest.approx(GOLDEN_LM_HEAD, abs=1e-6)
    assert {name: weights[f"model.layers.1.self_attn.{name}.weight"].norm().item() for name in GOLDEN_NORMS} == (
        pytest.approx(GOLDEN_NORMS, rel=1e-5)
    )


def test_any_shape_of_a_recipe_can_be_initialized() -> None:
    for heads, groups, layers, width in ((1, 1, 1, 8), (6, 2, 2, 48), (4, 4, 3, 16)):
        config = ModelConfig(
            vocab_size=300,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=groups,
            head_dim=8,
            intermediate_size=16,
        )
        logits = init_model(config, seed=0).logits(torch.randint(300, (1, 9)))
        assert torch.isfinite(logits).all()
