"""The type of each tensor in a quantized GGUF: llama.cpp's mixtures (`src/llama-quant.cpp`)."""

from __future__ import annotations

import re

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

FILE_TYPES = {
    "F32": LlamaFileType.ALL_F32,
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q6_K": LlamaFileType.MOSTLY_Q6_K,
    "Q5_1": LlamaFileType.MOSTLY_Q5_1,
    "Q5_K_M": LlamaFileType.MOSTLY_Q5_K_M,
    "Q4_K_M": LlamaFileType.MOSTLY_Q4_K_M,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
"""`general.file_type` by llama.cpp's name of the file type, from the largest file to the smallest."""

_SINGLE_TYPE_FILES = ("F32", "F16", "BF16", "Q8_0")

_FALLBACKS = {
    GGMLQuantizationType.Q6_K: GGMLQuantizationType.Q8_0,
    GGMLQuantizationType.Q5_K: GGMLQuantizationType.Q5_1,
    GGMLQuantizationType.Q4_K: GGMLQuantizationType.Q5_0,
}
"""Types with blocks of 32 that replace those with blocks of 256 where rows are not a multiple of 256 long."""


def tensor_type(name: str, shape: tuple[int, ...], file_type: str, num_layers: int) -> GGMLQuantizationType:
    """The type in which llama.cpp stores a tensor.

    Args:
        name: llama.cpp's name of the tensor, such as `blk.0.attn_q.weight`.
        shape: (rows, columns) of a matrix, (size,) of a norm.
        file_type: A key of `FILE_TYPES`.
        num_layers: Number of layers of the model.
    """
    if len(shape) == 1:
        return GGMLQuantizationType.F32  # norms: tiny, and sensitive to rounding
    base_type = GGMLQuantizationType[file_type.removesuffix("_M")]
    if file_type not in _SINGLE_TYPE_FILES and _needs_more_bits(name, file_type, num_layers):
        base_type = GGMLQuantizationType.Q6_K
    # Rows must fill whole blocks. Where not even the blocks of 32 fit, the matrix stays unquantized.
    for candidate in (base_type, _FALLBACKS.get(base_type, GGMLQuantizationType.F16)):
        block_length, _ = GGML_QUANT_SIZES[candidate]
        if shape[-1] % block_length == 0:
            return candidate
    return GGMLQuantizationType.F16


def _needs_more_bits(name: str, file_type: str, num_layers: int) -> bool:
    """Whether a matrix is stored as Q6_K in a mixture whose other matrices have fewer bits.

    That is the output head, and in the `_M` mixtures the value and feed-forward down projections of the first and the
    last eighth of the layers and of every third layer in between.
    """
    if name == "output.weight":
        return True
    projection = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if not projection or not file_type.endswith("_M"):
        return False
    layer, eighth = int(projection[1]), num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
