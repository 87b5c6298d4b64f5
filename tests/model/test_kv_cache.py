"""Sequences read piece by piece through the cache, against transformers reading each as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from keylm.model.kv_cache import KVCache
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig

SEQUENCES = [torch.arange(first, first + length) % 300 for first, length in [(3, 9), (50, 17), (120, 5)]]


@pytest.fixture
def model(tiny_model: ModelConfig) -> KeyLM:
    model = KeyLM(tiny_model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture
def expected(model: KeyLM) -> list[Tensor]:
    """Logits (length, V) of each sequence."""
    config = Qwen3Config(**model.config.transformers_fields, tie_word_embeddings=False)
    reference = Qwen3ForCausalLM(config).eval()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        return [reference(tokens[None]).logits[0] for tokens in SEQUENCES]


def read(model: KeyLM, cache: KVCache, first_slot: int, pieces: Sequence[Tensor], starts: Sequence[int]) -> Tensor:
    """Logits (B, T, V) of one piece for each slot from `first_slot` on, padded to the longest."""
    tokens = torch.nn.utils.rnn.pad_sequence(list(pieces), batch_first=True)
    positions = torch.tensor(starts)[:, None] + torch.arange(tokens.shape[1])
    hidden = model(tokens, positions=positions, contexts=cache.contexts(first_slot, positions))
    return hidden @ model.lm_head.weight.T


def check(logits: Tensor, expected: Sequence[Tensor]) -> None:
    for row, wanted in zip(logits, expected, strict=True):
        torch.testing.assert_close(row[: len(wanted)], wanted, rtol=1e-4, atol=1e-4)


def test_a_padded_prompt_and_then_one_token_at_a_time(model: KeyLM, expected: list[Tensor]) -> None:
    cache = KVCache(model.config, num_slots=3, capacity=20)
    lengths = [4, 12, 1]
    prompts = [tokens[:length] for tokens, length in zip(SEQUENCES, lengths, strict=True)]
    wanted = [logits[:length] for logits, length in zip(expected, lengths, strict=True)]
    check(read(model, cache, 0, prompts, [0, 0, 0]), wanted)
    for step in range(4):
        places = [length + step for length in lengths]
        pieces = [tokens[place : place + 1] for tokens, place in zip(SEQUENCES, places, strict=True)]
        wanted = [logits[place : place + 1] for logits, place in zip(expected, places, strict=True)]
        check(read(model, cache, 0, pieces, places), wanted)


def test_a_moved_sequence_goes_on_where_it_was(model: KeyLM, expected: list[Tensor]) -> None:
    cache = KVCache(model.config, num_slots=3, capacity=20)
    read(model, cache, 0, [tokens[:5] for tokens in SEQUENCES], [0, 0, 0])
    cache.move(1, 0, 5)
    check(read(model, cache, 0, [SEQUENCES[1][5:17]], [5]), [expected[1][5:17]])


def test_a_slot_is_used_again_and_leaves_its_neighbors_alone(model: KeyLM, expected: list[Tensor]) -> None:
    cache = KVCache(model.config, num_slots=3, capacity=20)
    read(model, cache, 0, [SEQUENCES[1], SEQUENCES[0][:4]], [0, 0])
    check(read(model, cache, 0, [SEQUENCES[2]], [0]), [expected[2]])
    check(read(model, cache, 1, [SEQUENCES[0][4:]], [4]), [expected[0][4:]])
