"""Which type each tensor has in a GGUF of a given name: llama.cpp's mixtures (`src/llama-quant.cpp`)."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
"""What a file says of itself, by its name; from the largest to the smallest."""

_BEST_TO_RUN = ("Q8_0", "F16", "BF16", "F32", "Q6_K", "Q5_K_M", "Q5_1", "Q4_K_M", "Q4_0")

_KINDS = GGMLQuantizationType
_NARROWER = {_KINDS.Q6_K: _KINDS.Q8_0, _KINDS.Q5_K: _KINDS.Q5_1, _KINDS.Q4_K: _KINDS.Q5_0}
"""What stands in for a type in blocks of 256, where rows are a multiple of 32 only."""


def best_type(kinds: Iterable[str]) -> str:
    """The one of several kinds to chat with: the smallest that answers as the weights do, if there is one."""
    ranks = {kind: rank for rank, kind in enumerate(_BEST_TO_RUN)}
    return min(kinds, key=lambda kind: (ranks.get(kind, len(ranks)), kind))


def tensor_type(name: str, shape: tuple[int, ...], kind: str, num_layers: int) -> GGMLQuantizationType:
    """The type of the tensor that llama.cpp calls `name`, of `shape` (rows, columns), in a file of `kind`.

    Norms stay F32. The head, and in the `_M` kinds the values and the feed-forward outputs of every third layer and of
    the first and last eighth, are more exact than the rest. A matrix whose rows fill no blocks is stored as F16.
    """
    if len(shape) == 1:
        return _KINDS.F32
    stored = _KINDS[kind.removesuffix("_M")]
    if _is_quantized(stored) and _deserves_more(name, kind, num_layers):
        stored = _KINDS.Q6_K
    if shape[-1] % GGML_QUANT_SIZES[stored][0]:
        stored = _NARROWER.get(stored, _KINDS.F16)
    return _KINDS.F16 if shape[-1] % GGML_QUANT_SIZES[stored][0] else stored


def _is_quantized(stored: GGMLQuantizationType) -> bool:
    """Whether the file is smaller than Q8_0, from which llama.cpp mixes types."""
    return stored not in (_KINDS.F32, _KINDS.F16, _KINDS.BF16, _KINDS.Q8_0)


def _deserves_more(name: str, kind: str, num_layers: int) -> bool:
    if name == "output.weight":
        return True
    chosen = re.fullmatch(r"blk\.(\d+)\.(attn_v|ffn_down)\.weight", name)
    if not chosen or not kind.endswith("_M"):
        return False
    layer, eighth = int(chosen[1]), num_layers // 8
    return layer < eighth or layer >= 7 * num_layers // 8 or (layer - eighth) % 3 == 2
