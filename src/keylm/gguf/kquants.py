"""llama.cpp's k-quants, encoded in numpy: what the `gguf` package can read but not write.

The formats, the candidates that are tried and the choice between them are llama.cpp's (`ggml/src/ggml-quants.c`,
`quantize_row_q4_K_ref` and its kin, by Iwan Kawrakow): 256 weights make a block, its groups of 32 or 16 have a scale
each, and the scales are quantized in turn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from gguf import GGMLQuantizationType, quants
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

_BLOCK = 256
_BLOCKS_AT_ONCE = 4096
_TINY = 1e-30


def quantize(values: Floats, kind: GGMLQuantizationType) -> NDArray[np.generic]:
    """A matrix (rows, columns) in the form in which GGUF stores `kind`: (rows, bytes) of uint8, or floats.

    Columns are a multiple of the kind's block: 256 for k-quants.
    """
    if kind not in _ENCODERS:
        stored: NDArray[np.generic] = quants.quantize(values, kind)
        return stored
    blocks = values.reshape(-1, _BLOCK)
    parts = [_ENCODERS[kind](blocks[at : at + _BLOCKS_AT_ONCE]) for at in range(0, len(blocks), _BLOCKS_AT_ONCE)]
    return np.concatenate(parts).reshape(len(values), -1)


def _q4_k(blocks: Floats) -> Bytes:
    head, levels = _with_minima(blocks, top=15, steps=np.arange(-1.0, 1.05, 0.1))
    return np.concatenate([head, _pairs(levels)], axis=1)


def _q5_k(blocks: Floats) -> Bytes:
    head, levels = _with_minima(blocks, top=31, steps=np.arange(-0.5, 1.05, 0.1))
    fifth = np.packbits(levels >> 4, axis=1, bitorder="little")[:, 0]
    return np.concatenate([head, fifth, _pairs(levels & np.uint8(15))], axis=1)


def _q6_k(blocks: Floats) -> Bytes:
    groups = blocks.reshape(-1, 16, 16)
    fitted = _fit_scales(groups)
    largest = np.take_along_axis(fitted, np.abs(fitted).argmax(axis=1, keepdims=True), axis=1)
    step = (-largest / 128).astype(np.float16)
    scales = np.rint(-128 * _ratio(fitted, largest)).clip(-128, 127).astype(np.int8)
    size = step.astype(np.float32) * scales
    levels = (np.rint(_ratio(groups, size[..., None])).clip(-32, 31) + 32).astype(np.uint8)
    halves, quarters = levels.reshape(-1, 2, 2, 64), (levels >> 4).reshape(-1, 2, 4, 32)
    low = (halves[:, :, 0] & 15) | (halves[:, :, 1] & 15) << 4
    high = np.bitwise_or.reduce(quarters << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2)
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), scales.view(np.uint8), step.view(np.uint8)]
    return np.concatenate(parts, axis=1)


def _with_minima(blocks: Floats, top: int, steps: NDArray[np.float64]) -> tuple[Bytes, Bytes]:
    """The head (n, 16) that Q4_K and Q5_K share, and levels (n, 8, 32) from 0 to `top`."""
    groups = blocks.reshape(-1, 8, 32)
    scales, minima = _fit_scales_and_minima(groups, top, steps)
    scale_step, scale_bits = _six_bits(scales)
    minimum_step, minimum_bits = _six_bits(minima)
    size = (scale_step.astype(np.float32) * scale_bits)[..., None]
    offset = (minimum_step.astype(np.float32) * minimum_bits)[..., None]
    levels = np.rint(_ratio(groups + offset, size)).clip(0, top).astype(np.uint8)
    (s, s_late), (m, m_late) = np.split(scale_bits, 2, axis=1), np.split(minimum_bits, 2, axis=1)
    packed = [s | s_late >> 4 << 6, m | m_late >> 4 << 6, s_late & 15 | (m_late & 15) << 4]
    return np.concatenate([scale_step.view(np.uint8), minimum_step.view(np.uint8), *packed], axis=1), levels


def _fit_scales_and_minima(groups: Floats, top: int, steps: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Scales and minima, (n, 8) each and not negative, such that `scale * level - minimum` comes close to `groups`.

    Each candidate rounds to levels, from the best minimum so far, then takes the scale and the minimum of least
    weighted squares for them.
    """
    weights = np.sqrt(np.square(groups).mean(axis=-1, keepdims=True)) + np.abs(groups)
    sum_w, sum_x = _sum(weights), _sum(weights * groups)
    highest, lowest = groups.max(axis=-1), np.minimum(groups.min(axis=-1), 0)
    scale = (highest - lowest) / top
    best = _error(groups, weights, _levels(groups, lowest, _ratio(top, highest - lowest), top), scale, lowest)
    for step in steps.astype(np.float32):
        levels = _levels(groups, lowest, _ratio(top + step, highest - lowest), top)
        weighted = weights * levels
        sum_l, sum_ll, sum_lx = (_sum(weighted), _sum(weighted * levels), _sum(weighted * groups))
        spread = sum_w * sum_ll - sum_l * sum_l
        slope, start = _ratio(sum_w * sum_lx - sum_x * sum_l, spread), _ratio(sum_ll * sum_x - sum_l * sum_lx, spread)
        slope, start = np.where(start > 0, _ratio(sum_lx, sum_ll), slope), np.minimum(start, 0)
        error = _error(groups, weights, levels, slope, start)
        better = (error < best) & (spread > 0)
        best, scale, lowest = (np.where(better, *pair) for pair in ((error, best), (slope, scale), (start, lowest)))
    return scale, -lowest


def _fit_scales(groups: Floats) -> Floats:
    """Scales (n, 16), negative ones too, such that `scale * level` with levels from -32 to 31 comes close."""
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=-1, keepdims=True), axis=-1)[..., 0]
    weights = np.square(groups)
    best_scale = best = np.zeros_like(largest)
    for step in [0.0, *(0.1 * turn for turn in range(-9, 10) if turn)]:
        levels = np.rint(groups * _ratio(-32 - step, largest)[..., None]).clip(-32, 31)
        weighted = weights * levels
        sum_lx, sum_ll = _sum(weighted * groups), _sum(weighted * levels)
        gain = sum_lx * _ratio(sum_lx, sum_ll)
        best_scale, best = np.where(gain > best, _ratio(sum_lx, sum_ll), best_scale), np.maximum(gain, best)
    return best_scale


def _levels(groups: Floats, lowest: Floats, per_unit: Floats, top: int) -> Floats:
    return np.rint(per_unit[..., None] * (groups - lowest[..., None])).clip(0, top)


def _error(groups: Floats, weights: Floats, levels: Floats, scale: Floats, start: Floats) -> Floats:
    """Weighted square error of each group."""
    return _sum(weights * np.square(scale[..., None] * levels + start[..., None] - groups))


def _sum(values: Floats) -> Floats:
    total: Floats = values.sum(axis=-1)
    return total


def _six_bits(values: Floats) -> tuple[NDArray[np.float16], Bytes]:
    """Values (n, 8) as multiples 0 to 63 of a step (n, 1)."""
    largest = values.max(axis=1, keepdims=True)
    return (largest / 63).astype(np.float16), np.rint(63 * _ratio(values, largest)).clip(0, 63).astype(np.uint8)


def _pairs(levels: Bytes) -> Bytes:
    """Levels (n, 8, 32) of four bits, two to a byte: those of a group beside those of the next, (n, 128)."""
    pairs = levels.reshape(-1, 4, 2, 32)
    joined: Bytes = pairs[:, :, 0] | pairs[:, :, 1] << np.uint8(4)
    return joined.reshape(-1, 128)


def _ratio(a: Floats | float, b: Floats) -> Floats:
    """`a / b`, and 0 where `b` is as good as 0: a group of zeros has the scale 0."""
    zeros = np.zeros(np.broadcast_shapes(np.shape(a), b.shape), np.float32)
    return np.divide(a, b, out=zeros, where=np.abs(b) > _TINY)


_ENCODERS: dict[GGMLQuantizationType, Callable[[Floats], Bytes]] = {
    GGMLQuantizationType.Q4_K: _q4_k,
    GGMLQuantizationType.Q5_K: _q5_k,
    GGMLQuantizationType.Q6_K: _q6_k,
}
