"""Which tensor is stored in which type, against what llama-quantize prints for a model of 24 layers."""

from __future__ import annotations

import pytest
from gguf import GGMLQuantizationType as Kind

from keylm.gguf.tensor_types import FILE_TYPES, tensor_type

WIDE, NARROW, ODD = (512, 512), (512, 96), (512, 80)


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_norms_stay_in_float32(kind: str) -> None:
    assert tensor_type("blk.0.attn_q_norm.weight", (64,), kind, 24) == Kind.F32


@pytest.mark.parametrize(
    ("kind", "embedding", "head"),
    [
        ("F32", Kind.F32, Kind.F32),
        ("F16", Kind.F16, Kind.F16),
        ("BF16", Kind.BF16, Kind.BF16),
        ("Q8_0", Kind.Q8_0, Kind.Q8_0),
        ("Q6_K", Kind.Q6_K, Kind.Q6_K),
        ("Q5_K_M", Kind.Q5_K, Kind.Q6_K),
        ("Q5_1", Kind.Q5_1, Kind.Q6_K),
        ("Q4_K_M", Kind.Q4_K, Kind.Q6_K),
        ("Q4_0", Kind.Q4_0, Kind.Q6_K),
    ],
)
def test_the_head_is_more_exact(kind: str, embedding: Kind, head: Kind) -> None:
    assert tensor_type("token_embd.weight", WIDE, kind, 24) == embedding
    assert tensor_type("output.weight", WIDE, kind, 24) == head


@pytest.mark.parametrize("tensor", ["attn_v", "ffn_down"])
def test_half_of_the_layers_are_more_exact(tensor: str) -> None:
    types = [tensor_type(f"blk.{layer}.{tensor}.weight", WIDE, "Q4_K_M", 24) for layer in range(24)]
    more = [layer for layer, kind in enumerate(types) if kind == Kind.Q6_K]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert set(types) == {Kind.Q4_K, Kind.Q6_K}


def test_other_matrices_and_pure_kinds_are_of_one_type() -> None:
    assert tensor_type("blk.0.ffn_up.weight", WIDE, "Q4_K_M", 24) == Kind.Q4_K
    assert tensor_type("blk.0.attn_v.weight", WIDE, "Q4_0", 24) == Kind.Q4_0


@pytest.mark.parametrize(
    ("kind", "narrow"),
    [("Q6_K", Kind.Q8_0), ("Q5_K_M", Kind.Q5_1), ("Q4_K_M", Kind.Q5_0), ("Q4_0", Kind.Q4_0), ("Q8_0", Kind.Q8_0)],
)
def test_rows_that_fill_no_block_fall_back(kind: str, narrow: Kind) -> None:
    assert tensor_type("blk.9.ffn_up.weight", NARROW, kind, 24) == narrow
    assert tensor_type("blk.9.ffn_up.weight", ODD, kind, 24) == Kind.F16
