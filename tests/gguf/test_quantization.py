"""The k-quant encoder, against llama.cpp's own: the one that lies in xllamacpp's library."""

from __future__ import annotations

import ctypes

import gguf
import numpy as np
import pytest
import xllamacpp.xllamacpp
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from keylm.gguf.kquants import quantize

K_QUANTS = [Kind.Q4_K, Kind.Q5_K, Kind.Q6_K]
LLAMA = ctypes.CDLL(xllamacpp.xllamacpp.__file__)


@pytest.mark.parametrize("kind", K_QUANTS)
@pytest.mark.parametrize("shift", [0.0, 0.05, -1.0])
def test_it_is_as_exact_as_llama_cpps_encoder(kind: Kind, shift: float) -> None:
    values = np.random.default_rng(0).normal(shift, 0.02, (64, 512)).astype(np.float32)
    ours, theirs = quantize(values, kind), llama_quantize(values, kind)
    assert ours.shape == theirs.shape
    assert (ours == theirs).mean() > 0.98  # a sum in another order may tip a choice between equals
    assert error(values, ours, kind) <= 1.001 * error(values, theirs, kind)


@pytest.mark.parametrize("kind", K_QUANTS)
def test_llama_cpp_reads_what_we_write(kind: Kind) -> None:
    values = np.random.default_rng(1).standard_t(3, (16, 256)).astype(np.float32)
    stored = quantize(values, kind)
    np.testing.assert_array_equal(llama_dequantize(stored, kind), gguf.quants.dequantize(stored, kind))


@pytest.mark.parametrize(("kind", "levels"), [(Kind.Q4_K, 15), (Kind.Q5_K, 31), (Kind.Q6_K, 62)])
@settings(max_examples=60, deadline=None)
@given(values=arrays.arrays(np.float32, (2, 256), elements=st.floats(-8, 8, width=32)))
def test_any_weight_comes_back_within_a_level(kind: Kind, levels: int, values: np.ndarray) -> None:
    back = gguf.quants.dequantize(quantize(values, kind), kind)
    widths = np.maximum(values.max(axis=1), 0) - np.minimum(values.min(axis=1), 0)
    # A super-block's scale is a float16, whose smallest step is 2^-24; up to 128 sub-scales and 32 levels multiply it.
    coarsest = 2**-24 * 128 * 32
    assert np.isfinite(back).all()
    assert (np.abs(back - values).max(axis=1) <= 2.2 * widths / levels + coarsest).all()


@pytest.mark.parametrize("kind", K_QUANTS)
def test_zeros_stay_zeros(kind: Kind) -> None:
    zeros = np.zeros((1, 256), np.float32)
    np.testing.assert_array_equal(gguf.quants.dequantize(quantize(zeros, kind), kind), zeros)


def llama_quantize(values: np.ndarray, kind: Kind) -> np.ndarray:
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    stored = np.zeros((rows, columns // block * size), np.uint8)
    counts = [ctypes.c_int64(count) for count in (0, rows, columns)]
    LLAMA.ggml_quantize_chunk(kind.value, _pointer(values), _pointer(stored), *counts, None)
    return stored


def llama_dequantize(stored: np.ndarray, kind: Kind) -> np.ndarray:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    values = np.zeros((len(stored), stored.shape[1] // size * block), np.float32)
    read = getattr(LLAMA, f"dequantize_row_{kind.name.lower()[:-1]}K")
    read(_pointer(stored), _pointer(values), ctypes.c_int64(values.size))
    return values


def error(values: np.ndarray, stored: np.ndarray, kind: Kind) -> float:
    return float(np.square(gguf.quants.dequantize(stored, kind) - values).mean())


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
