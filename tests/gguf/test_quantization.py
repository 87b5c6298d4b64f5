"""The encoder of quantized types, against blocks made by hand, the `gguf` package, and llama.cpp's decoder."""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest
import torch
import xllamacpp.xllamacpp
from gguf import GGMLQuantizationType as TensorType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keylm.common.errors import KeyLMError
from keylm.gguf import quantization
from keylm.gguf.quantization import quantize

K_QUANTS = [TensorType.Q4_K, TensorType.Q5_K, TensorType.Q6_K]
LEGACY_QUANTS = [TensorType.Q4_0, TensorType.Q5_0, TensorType.Q5_1, TensorType.Q8_0]

STEP = 2**-10
"""The scale of the blocks made by hand; a float16 holds it exactly."""


@pytest.mark.parametrize("tensor_type", LEGACY_QUANTS)
@pytest.mark.parametrize("shift", [0.0, 0.05, -1.0])
def test_legacy_types_match_the_gguf_package(tensor_type: TensorType, shift: float) -> None:
    """Its encoders in numpy give the bytes of llama.cpp's reference implementation."""
    values = np.random.default_rng(0).normal(shift, 0.02, (64, 512)).astype(np.float32)
    np.testing.assert_array_equal(
        quantize(torch.from_numpy(values), tensor_type), gguf.quants.quantize(values, tensor_type)
    )


def test_a_q4_k_block_made_by_hand() -> None:
    """Eight groups of 32 levels from 0 to 15, each with the scale 63 and the minimum 0."""
    levels = np.tile(np.arange(16), 16)
    scales = bytes([0xFF] * 4 + [0x00] * 4 + [0x0F] * 4)
    low = bytes(level * 0x11 for level in range(16)) * 8
    assert_block(63 * STEP * levels, TensorType.Q4_K, half(STEP) + half(0) + scales + low)


def test_a_q5_k_block_made_by_hand() -> None:
    """Eight groups of 32 levels from 0 to 31, whose fifth bits lie in bytes of their own."""
    levels = np.tile(np.arange(32), 8)
    scales = bytes([0xFF] * 4 + [0x00] * 4 + [0x0F] * 4)
    high = bytes([0x00] * 16 + [0xFF] * 16)
    low = bytes((level & 15) * 0x11 for level in range(32)) * 4
    assert_block(63 * STEP * levels, TensorType.Q5_K, half(STEP) + half(0) + scales + high + low)


def test_a_q6_k_block_made_by_hand() -> None:
    """Sixteen groups of 16 levels from -32 to 28, each with the scale -128, so the step is negative."""
    levels = np.tile(np.arange(0, 64, 4), 16)
    low = bytes((level & 15) * 0x11 for level in range(0, 64, 4)) * 8
    high = bytes((level >> 4) * 0x55 for level in range(0, 64, 4)) * 4
    assert_block(128 * STEP * (levels - 32), TensorType.Q6_K, low + high + bytes([0x80] * 16) + half(-STEP))


@pytest.mark.parametrize(
    ("finer", "coarser", "ratio"),
    [
        (TensorType.Q4_K, TensorType.Q4_0, 0.9),
        (TensorType.Q5_K, TensorType.Q4_K, 0.55),
        (TensorType.Q6_K, TensorType.Q5_K, 0.55),
        (TensorType.Q8_0, TensorType.Q6_K, 0.35),
    ],
)
def test_each_type_is_finer_than_the_one_below(finer: TensorType, coarser: TensorType, ratio: float) -> None:
    """One more bit halves the error; `ratio` leaves some room for the scales' bits."""
    values = np.random.default_rng(0).normal(0, 0.02, (64, 512)).astype(np.float32)
    assert rms_error(values, finer) < ratio * rms_error(values, coarser)


@pytest.mark.parametrize("tensor_type", K_QUANTS)
def test_llama_cpp_decodes_as_the_gguf_package(tensor_type: TensorType) -> None:
    values = np.random.default_rng(1).standard_t(3, (16, 256)).astype(np.float32)
    blocks = quantize(torch.from_numpy(values), tensor_type)
    np.testing.assert_array_equal(llama_dequantize(blocks, tensor_type), gguf.quants.dequantize(blocks, tensor_type))


@pytest.mark.parametrize(
    ("tensor_type", "levels"), [(TensorType.Q4_K, 15), (TensorType.Q5_K, 31), (TensorType.Q6_K, 62)]
)
@settings(max_examples=60, deadline=None)
@given(values=arrays.arrays(np.float32, (2, 256), elements=st.floats(-8, 8, width=32)))
def test_any_weight_comes_back_within_a_level(tensor_type: TensorType, levels: int, values: np.ndarray) -> None:
    decoded = gguf.quants.dequantize(quantize(torch.from_numpy(values), tensor_type), tensor_type)
    widths = np.maximum(values.max(axis=1), 0) - np.minimum(values.min(axis=1), 0)
    # A super-block's scale is a float16, whose smallest step is 2^-24; up to 128 sub-scales and 32 levels multiply it.
    coarsest = 2**-24 * 128 * 32
    assert np.isfinite(decoded).all()
    assert (np.abs(decoded - values).max(axis=1) <= 2.2 * widths / levels + coarsest).all()


@pytest.mark.parametrize("tensor_type", [*K_QUANTS, *LEGACY_QUANTS])
def test_zeros_stay_zeros(tensor_type: TensorType) -> None:
    zeros = torch.zeros(1, 256)
    decoded = gguf.quants.dequantize(quantize(zeros, tensor_type), tensor_type)
    np.testing.assert_array_equal(decoded, zeros.numpy())


def test_float_types_are_rounded_as_torch_does() -> None:
    values = torch.randn(8, 40)
    np.testing.assert_array_equal(quantize(values, TensorType.F32), values.numpy())
    np.testing.assert_array_equal(quantize(values, TensorType.F16), values.half().numpy())
    bits = values.bfloat16().view(torch.uint8).numpy()
    np.testing.assert_array_equal(quantize(values, TensorType.BF16), bits)


def test_a_strided_tensor_is_encoded_in_order() -> None:
    values = torch.randn(256, 64)
    np.testing.assert_array_equal(quantize(values.T, TensorType.Q4_K), quantize(values.T.contiguous(), TensorType.Q4_K))


def test_a_library_without_the_encoder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels for Windows do not export it."""
    quantization._ggml_quantize_chunk.cache_clear()
    monkeypatch.setattr(quantization.ctypes, "CDLL", lambda _: object())
    with pytest.raises(KeyLMError, match="does not export ggml_quantize_chunk"):
        quantize(torch.zeros(1, 256), TensorType.Q4_K)


def assert_block(values: np.ndarray, tensor_type: TensorType, expected: bytes) -> None:
    """Check that 256 values, which a block can hold exactly, are encoded as the bytes of that block."""
    tensor = torch.from_numpy(values.astype(np.float32)[None])
    blocks = quantize(tensor, tensor_type)
    np.testing.assert_array_equal(gguf.quants.dequantize(blocks, tensor_type), tensor.numpy())
    assert blocks.tobytes() == expected


def half(value: float) -> bytes:
    """A number as the bytes of a float16."""
    return np.float16(value).tobytes()


def rms_error(values: np.ndarray, tensor_type: TensorType) -> float:
    """Root mean square of the difference that encoding makes."""
    decoded = gguf.quants.dequantize(quantize(torch.from_numpy(values), tensor_type), tensor_type)
    return float(np.sqrt(np.square(decoded - values).mean()))


def llama_dequantize(blocks: np.ndarray, tensor_type: TensorType) -> np.ndarray:
    """Decode with llama.cpp's own function for the type."""
    block_length, block_bytes = gguf.GGML_QUANT_SIZES[tensor_type]
    values = np.zeros((len(blocks), blocks.shape[1] // block_bytes * block_length), np.float32)
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    decode = getattr(library, f"dequantize_row_{tensor_type.name.lower()[:-1]}K")
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (blocks, values))
    decode(*pointers, ctypes.c_int64(values.size))
    return values
