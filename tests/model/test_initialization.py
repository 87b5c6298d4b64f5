"""The first weights: a function of the seed, and able to copy before any training."""

from __future__ import annotations

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


def test_fresh_weights_are_a_function_of_the_seed(tiny_model: ModelConfig) -> None:
    first, again, other = (init_model(tiny_model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_a_fresh_model_copies_what_is_said_again() -> None:
    """Random tokens, four times over: the token that came next before is the likeliest one but for repeating the
    current token, for two places in five; without the copying heads it would be one of 2,000."""
    model = init_model(SMALL, seed=0).eval()
    phrase = torch.randint(2000, (8, 12))
    tokens = phrase.repeat(1, 4)
    logits = model.logits(tokens)[:, 12:-1]
    logits.scatter_(2, tokens[:, 12:-1, None], float("-inf"))
    share = (logits.argmax(-1) == tokens[:, 13:]).float().mean()
    assert share > 0.4


def test_every_shape_that_a_recipe_allows_gets_weights() -> None:
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
