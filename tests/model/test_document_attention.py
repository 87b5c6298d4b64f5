"""Packed documents against the same documents one by one: in float32, hidden states are bit-equal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from keylm.model.document_attention import PackedDocuments
from keylm.model.transformer import KeyLM
from keylm.recipe.model import ModelConfig

MODEL = ModelConfig(
    vocab_size=300,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    intermediate_size=96,
    max_position_embeddings=512,
)


def made(dtype: torch.dtype = torch.float32) -> KeyLM:
    torch.manual_seed(0)
    model = KeyLM(MODEL, dtype)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def rows(lengths: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and document_ids of packed rows."""
    width = max(map(sum, lengths))
    document_ids = torch.tensor(
        [[number for number, n in enumerate([*row, width - sum(row)]) for _ in range(n)] for row in lengths]
    )
    return torch.randint(300, document_ids.shape), document_ids


packed_rows = st.lists(st.lists(st.integers(1, 120), min_size=1, max_size=6), min_size=1, max_size=3)


@given(packed_rows)
@settings(max_examples=25, deadline=None)
def test_packed_attention_is_bit_equal(lengths: list[list[int]]) -> None:
    _, document_ids = rows(lengths)
    q, k, v = (torch.randn(*document_ids.shape, heads, 16).transpose(1, 2) for heads in (4, 2, 2))
    packed = PackedDocuments.of(document_ids, torch.float32).attend(q, k, v)
    for row in range(len(document_ids)):
        for number in document_ids[row].unique():
            here = document_ids[row] == number
            alone = (x[row : row + 1, :, here].contiguous() for x in (q, k, v))
            seen = torch.nn.functional.scaled_dot_product_attention(*alone, is_causal=True, enable_gqa=True)
            assert torch.equal(packed[row : row + 1, here], seen.transpose(1, 2))


def adds_alike(model: KeyLM, count: int) -> bool:
    """Whether this processor's products give `count` rows the bits that they have among many rows."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    many = [torch.randn(400, weight.shape[1]) for weight in weights]
    return all(torch.equal((x @ w.T)[:count], x[:count] @ w.T) for x, w in zip(many, weights, strict=True))


def compare_bits() -> None:
    """Hidden states and losses of packed rows against the documents one by one: every bit.

    MKL promises one order of adding on Intel's processors alone: on others, products of up to three rows have another.
    """
    model, generator = made(), torch.Generator().manual_seed(1)
    compared = 0
    with torch.no_grad():
        for _ in range(40):
            drawn = torch.randint(1, 200, (2, 4), generator=generator).tolist()
            tokens, document_ids = rows(drawn)
            hidden = model(tokens, document_ids)
            for row in range(2):
                for number in document_ids[row].unique():
                    here = document_ids[row] == number
                    if adds_alike(model, int(here.sum())):
                        assert torch.equal(hidden[row, here], model(tokens[row : row + 1, here])[0]), int(here.sum())
                        compared += 1
    assert compared > 0.9 * 40 * 8


@pytest.mark.parametrize("threads", ["1", "2"])
def test_packed_hidden_states_are_bit_equal(threads: str) -> None:
    """MKL adds in one order whatever the number of rows only if it is told so before it is loaded."""
    environment = {**os.environ, "MKL_CBWR": "AVX2,STRICT", "OMP_NUM_THREADS": threads}
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_document_attention as t; "
    code += "t.compare_bits()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_loss_and_gradients_equal_single_documents(dtype: torch.dtype) -> None:
    lengths = [[37, 5, 64, 1], [33, 33, 20]]
    tokens, document_ids = rows(lengths)
    targets = torch.randint(300, tokens.shape)
    packed, alone = made(dtype), made(dtype)
    packed.loss(tokens, targets, document_ids).backward()
    for row in range(2):
        for number in document_ids[row].unique():
            here = document_ids[row] == number
            alone.loss(tokens[row : row + 1, here], targets[row : row + 1, here]).backward()
    tolerance = 1e-4 if dtype == torch.float32 else 4e-2
    for ours, theirs in zip(packed.parameters(), alone.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= tolerance * theirs.grad.norm()
