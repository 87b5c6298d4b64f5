"""Quantization by llama.cpp's own encoders, called in the shared library that xllamacpp ships."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from numpy.typing import NDArray

from keylm.common.errors import KeyLMError

if TYPE_CHECKING:
    import torch

FLOAT_TYPES = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)


def quantize(weight: torch.Tensor | NDArray[np.float32], tensor_type: GGMLQuantizationType) -> NDArray[np.generic]:
    """Encode a weight as GGUF stores it.

    Quantized types get the bytes that `llama-quantize` writes without an importance matrix: both call
    `ggml_quantize_chunk`.

    Args:
        weight: A matrix (rows, columns), as a tensor of any float dtype or as a float32 array; for float types, a
            vector too. For quantized types, columns must be a multiple of the block length (`GGML_QUANT_SIZES`).
        tensor_type: The type to store it in.

    Returns:
        Floats of the same shape for F32 and F16; otherwise uint8 (rows, bytes per row).

    Raises:
        KeyLMError: The installed xllamacpp does not export the encoder.
    """
    # Arrays come from where torch is not loaded: importing it takes longer than quantizing.
    values = np.ascontiguousarray(weight if isinstance(weight, np.ndarray) else weight.float().numpy())
    if tensor_type in FLOAT_TYPES:
        encoded: NDArray[np.generic] = quants.quantize(values, tensor_type)
        return encoded
    rows, columns = values.shape
    block_length, block_bytes = GGML_QUANT_SIZES[tensor_type]
    assert columns % block_length == 0, f"{columns} columns do not fill blocks of {block_length}"
    blocks = np.empty((rows, columns // block_length * block_bytes), np.uint8)
    num_bytes = _ggml_quantize_chunk()(tensor_type, values.ctypes.data, blocks.ctypes.data, 0, rows, columns, None)
    assert num_bytes == blocks.nbytes
    return blocks


@cache
def _ggml_quantize_chunk() -> ctypes._NamedFuncPointer:
    import xllamacpp.xllamacpp

    try:
        function = ctypes.CDLL(xllamacpp.xllamacpp.__file__).ggml_quantize_chunk
    except AttributeError as error:
        # Wheels for Windows keep llama.cpp's C functions to themselves; those for Linux and macOS export them.
        raise KeyLMError(
            f"{xllamacpp.xllamacpp.__file__} does not export ggml_quantize_chunk, which quantizes GGUF files: "
            "install another version of xllamacpp, or set `export.gguf` to F32, F16 or BF16"
        ) from error
    # size_t ggml_quantize_chunk(type, const float * src, void * dst, start, nrows, n_per_row, const float * imatrix)
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    function.restype = ctypes.c_size_t
    return function
