"""The type of each tensor, against the output of llama-quantize for a model of 24 layers."""

from __future__ import annotations

import pytest
from gguf import GGMLQuantizationType as TensorType

from keylm.gguf.tensor_types import FILE_TYPES, tensor_type

WIDE, NARROW, ODD = (512, 512), (512, 96), (512, 80)


@pytest.mark.parametrize("file_type", FILE_TYPES)
def test_norms_stay_in_float32(file_type: str) -> None:
    assert tensor_type("blk.0.attn_q_norm.weight", (64,), file_type, 24) == TensorType.F32


@pytest.mark.parametrize(
    ("file_type", "embedding", "head"),
    [
        ("F32", TensorType.F32, TensorType.F32),
        ("F16", TensorType.F16, TensorType.F16),
        ("BF16", TensorType.BF16, TensorType.BF16),
        ("Q8_0", TensorType.Q8_0, TensorType.Q8_0),
        ("Q6_K", TensorType.Q6_K, TensorType.Q6_K),
        ("Q5_K_M", TensorType.Q5_K, TensorType.Q6_K),
        ("Q5_1", TensorType.Q5_1, TensorType.Q6_K),
        ("Q4_K_M", TensorType.Q4_K, TensorType.Q6_K),
        ("Q4_0", TensorType.Q4_0, TensorType.Q6_K),
    ],
)
def test_the_head_gets_more_bits(file_type: str, embedding: TensorType, head: TensorType) -> None:
    assert tensor_type("token_embd.weight", WIDE, file_type, 24) == embedding
    assert tensor_type("output.weight", WIDE, file_type, 24) == head


@pytest.mark.parametrize("tensor", ["attn_v", "ffn_down"])
def test_half_of_the_layers_get_more_bits(tensor: str) -> None:
    types = [tensor_type(f"blk.{layer}.{tensor}.weight", WIDE, "Q4_K_M", 24) for layer in range(24)]
    q6_k_layers = [layer for layer, stored in enumerate(types) if stored == TensorType.Q6_K]
    assert q6_k_layers == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert set(types) == {TensorType.Q4_K, TensorType.Q6_K}


def test_other_matrices_have_the_base_type() -> None:
    assert tensor_type("blk.0.ffn_up.weight", WIDE, "Q4_K_M", 24) == TensorType.Q4_K
    assert tensor_type("blk.0.attn_v.weight", WIDE, "Q4_0", 24) == TensorType.Q4_0


@pytest.mark.parametrize(
    ("file_type", "expected"),
    [
        ("Q6_K", TensorType.Q8_0),
        ("Q5_K_M", TensorType.Q5_1),
        ("Q4_K_M", TensorType.Q5_0),
        ("Q4_0", TensorType.Q4_0),
        ("Q8_0", TensorType.Q8_0),
    ],
)
def test_rows_that_do_not_fill_blocks_fall_back(file_type: str, expected: TensorType) -> None:
    assert tensor_type("blk.9.ffn_up.weight", NARROW, file_type, 24) == expected
    assert tensor_type("blk.9.ffn_up.weight", ODD, file_type, 24) == TensorType.F16
